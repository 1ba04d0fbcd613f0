"""Read the next picture while the network works on this one."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


def prefetch(items: Iterable[Item], read: Callable[[Item], Value]) -> Iterator[tuple[Item, Future[Value]]]:
    """Yield each item with its `read`, one ahead, in a thread; `result()` of the future gives the value or raises what
    the reading did.
    """
    with ThreadPoolExecutor(1, "read") as pool:
        previous: tuple[Item, Future[Value]] | None = None
        try:
            for item in items:
                following = (item, pool.submit(read, item))
                if previous is not None:
                    yield previous
                previous = following
            if previous is not None:
                yield previous
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
