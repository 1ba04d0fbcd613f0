"""Where a process says that it is."""

import re
import threading
from collections.abc import Iterator
from types import FunctionType

from seenet.core.progress import track
from seenet.evaluation.whereabouts import WAITING, whereabouts


def asked_by_another_thread() -> str:
    found: list[str] = []
    me = threading.get_ident()
    thread = threading.Thread(target=lambda: found.append(whereabouts(me)))
    thread.start()
    thread.join()
    return found[0]


def asking() -> Iterator[str]:
    yield asked_by_another_thread()


def test_the_innermost_frame_of_this_package() -> None:
    assert asked_by_another_thread() == "an unknown place"
    assert re.fullmatch(r"seenet\.core\.progress, line \d+", next(iter(track(asking(), "asking", 1))))


def test_a_thread_of_the_users_own_is_looked_for_too() -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(track(asking(), "asking", 1)))
    thread.start()
    thread.join()
    assert re.fullmatch(r"seenet\.core\.progress, line \d+", found[0])


def test_who_is_in_an_operation_with_the_others_waits() -> None:
    in_operation = FunctionType(asked_by_another_thread.__code__, {**globals(), "__name__": "torch.distributed.distributed_c10d"})
    assert in_operation() == WAITING
