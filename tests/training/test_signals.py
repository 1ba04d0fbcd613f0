"""What a signal does while something is under way, and while nothing is."""

import os
import signal
import threading
from pathlib import Path

import pytest

import seenet
from seenet.training.signals import Waited, stop_requests
from tests.training.test_trainer import recipe


def test_a_signal_waits_for_what_is_under_way_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.code == 143
        with pytest.raises(Waited), stop.idle():
            os.kill(os.getpid(), signal.SIGTERM)
        # What the first one began is not interrupted by a second.
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_after_one_in_idle_time_saving_goes_on() -> None:
    with stop_requests() as stop:
        with stop.idle():
            with pytest.raises(Waited):
                os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.code == 143


def test_the_second_interrupt_is_at_once() -> None:
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.code == 130
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_another_thread_trains_and_scores_without_listening(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "seenet")
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    found: list[object] = []

    def work() -> None:
        try:
            result = seenet.train(recipe("training.steps=2", "training.workers=1"), tmp_path / "run", device="cpu")
            found.append((result.miou, seenet.evaluate(tmp_path / "run", device="cpu")["miou"]))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert isinstance(found[0], tuple), found
    assert found[0][0] == found[0][1]
    assert len([record for record in caplog.records if "not in the main thread" in record.getMessage()]) == 1
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
