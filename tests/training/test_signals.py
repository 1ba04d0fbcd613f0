"""What a signal does while something is under way, and while nothing is."""

import os
import signal

import pytest

from seenet.training.signals import Waited, stop_requests


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
