"""Write what is done while the network works on the next picture."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

WAITING = 2
"""Jobs that may wait for the thread; more would only hold more pictures."""


@contextmanager
def behind() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Give a function that has each job done in a thread, one after the other, and all of them before the block ends.

    What a job raises comes out of a later call, or of the block's end. Where the block is left by an error or a signal the job in hand is
    finished and the others are dropped.
    """
    with ThreadPoolExecutor(1, "write") as pool:
        jobs: deque[Future[None]] = deque()

        def later(job: Callable[[], None]) -> None:
            jobs.append(pool.submit(job))
            while len(jobs) > WAITING or (jobs and jobs[0].done()):
                jobs.popleft().result()

        try:
            yield later
            while jobs:
                jobs.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
