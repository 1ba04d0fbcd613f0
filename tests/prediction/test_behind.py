import threading
import time

import pytest

from seenet.prediction.behind import WAITING, behind


def test_jobs_run_in_order_beside_the_block_and_all_of_them() -> None:
    done: list[int] = []
    with behind() as later:
        for number in range(6):
            later(lambda number=number: (time.sleep(0.01), done.append(number))[1])
            assert len(done) >= number - WAITING
        assert len(done) < 6
    assert done == list(range(6))


def test_an_error_comes_out_and_the_rest_is_dropped() -> None:
    done: list[int] = []

    def job(number: int) -> None:
        time.sleep(0.01)
        if number == 1:
            raise OSError("full")
        done.append(number)

    def run(numbers: range) -> None:
        with behind() as later:
            for number in numbers:
                later(lambda number=number: job(number))

    with pytest.raises(OSError, match="full"):
        run(range(50))
    assert done[0] == 0 and max(done) <= 2 + WAITING
    # The last one's too.
    with pytest.raises(OSError, match="full"):
        run(range(1, 2))


def test_left_by_a_signal_the_job_in_hand_is_finished_and_no_thread_stays() -> None:
    before, started, done = threading.active_count(), threading.Event(), []

    def job(number: int) -> None:
        started.set()
        time.sleep(0.05)
        done.append(number)

    def run() -> None:
        with behind() as later:
            later(lambda: job(0))
            later(lambda: job(1))
            started.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert done == [0]
    assert threading.active_count() == before
