"""Work on the samples of a split, of which each process of a group does a part."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from seenet.core.errors import DataError
from seenet.core.processes import listed, ranks
from seenet.core.progress import track

T = TypeVar("T")


def read_together(
    indices: Sequence[int], read: Callable[[int], T], what: str | None, *, threads: int, among: Sequence[int] | None = None
) -> dict[int, T]:
    """What `read` gives of each index, by index; every process of the group must call this, and has all of it.

    Args:
        what: stands before the progress bar; None: no bar.
        among: ranks that see the same files, of which this is one, and share `indices`; None: all.

    Raises DataError: what the first of the indices that fail has raised, in all processes.
    """
    rank, world = ranks()
    mates = range(world) if among is None else among
    mine = indices[mates.index(rank) :: len(mates)]
    found: dict[int, T] = {}
    failed: list[tuple[int, DataError]] = []
    with ThreadPoolExecutor(threads) as pool:
        values = pool.map(read, mine)
        try:
            for index, value in zip(mine, track(values, what, len(mine)) if what else values, strict=True):
                found[index] = value
        except DataError as error:
            failed.append((mine[len(found)], error))
    parts = listed([(found, failed)])
    failures = [failure for _, failed in parts for failure in failed]
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]
    return {index: value for mate in mates for index, value in parts[mate][0].items()}
