"""Who is lost is named, by all that are left; who only ended, or was suspended with everybody, is not."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from torch.distributed import TCPStore

from seenet.core.errors import DataError, LostError, Stopped, Terminated
from seenet.evaluation import heartbeat
from seenet.evaluation.heartbeat import Heartbeat, beating, naming_lost
from seenet.evaluation.whereabouts import WAITING


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT", 0.02)


@pytest.fixture
def store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=30))


@contextmanager
def alive(store: Any, world: int) -> Iterator[list[Heartbeat]]:
    ranks = [Heartbeat(store, rank, world) for rank in range(world)]
    for one in ranks:
        one.start()
    try:
        wait_for(lambda: all(seen.word for one in ranks for seen in one.seen.values()))
        yield ranks
    finally:
        for one in ranks:
            one.leave(None)


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def fall_silent(one: Heartbeat) -> None:
    one._stop.set()
    one._thread.join()


def test_nobody_is_lost_while_all_live_and_when_they_end(store: TCPStore) -> None:
    with alive(store, 3) as (first, second, third):
        assert first.explain(failed=True) is None
        second.leave(None)
        third.leave(Stopped("stopped after step 3, saved", 143))
        wait_for(lambda: first.seen[2].word.startswith("left 143"))
        assert first.explain(failed=False) is None
        assert first._thread.is_alive()


def test_the_silent_one_is_named_by_all(store: TCPStore) -> None:
    with alive(store, 3) as (first, second, third):
        fall_silent(second)
        lost = first.explain(failed=True)
        assert lost is not None and lost.exit_code == 75
        assert str(lost).startswith("rank 1 (host ") and f"pid {os.getpid()}): no sign of life for " in str(lost)
        # The third waits for the first, who ends because of the second.
        first.leave(lost)
        assert str(third.explain(failed=True)) == str(lost)


@pytest.mark.parametrize(("error", "code", "why"), [(DataError("a: cut\nshort"), 4, "a: cut short"), (KeyError("x"), 1, "KeyError")])
def test_who_gave_up_is_quoted(store: TCPStore, error: Exception, code: int, why: str) -> None:
    with alive(store, 2) as (first, second):
        second.leave(error)
        lost = first.explain(failed=False)
        assert lost is not None and lost.exit_code == code
        assert str(lost).startswith(f"rank 1 ended ({why}")


def test_after_a_failed_operation_a_requested_end_is_the_reason(store: TCPStore) -> None:
    with alive(store, 2) as (first, second):
        second.leave(Terminated())
        wait_for(lambda: first.seen[1].word.startswith("left"))
        assert first.explain(failed=False) is None
        lost = first.explain(failed=True)
        assert lost is not None and lost.exit_code == 143


def test_suspended_with_the_others_it_blames_nobody(store: TCPStore) -> None:
    """Its own beats are what it counts in: none are made while it sleeps, however long the clock runs."""
    with alive(store, 2) as (first, second):
        asleep, honest = threading.Event(), second._look
        second._look = lambda: asleep.wait(60) and honest()  # type: ignore[method-assign]
        fall_silent(first)
        time.sleep((heartbeat.SUSPICION + 10) * heartbeat.BEAT)
        assert second._verdict(heartbeat.SUSPICION, on_request=True) is None
        asleep.set()
        wait_for(lambda: second._verdict(heartbeat.SUSPICION, on_request=True))


def test_one_that_cannot_even_raise_is_ended(store: TCPStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    told: list[LostError] = []
    monkeypatch.setattr("os._exit", codes.append)
    monkeypatch.setattr(heartbeat, "SILENCE", 5)
    monkeypatch.setattr(heartbeat, "GRACE", 0.05)
    with alive(store, 2) as (first, second):
        first.on_lost.append(told.append)
        fall_silent(second)
        wait_for(lambda: codes)
    assert codes == [75]
    assert [str(lost) for lost in told] == [capsys.readouterr().err.removeprefix("seenet: ").strip()]
    assert "rank 1 (host" in str(told[0])


def test_without_its_launcher_it_ends_as_for_sigterm(
    store: TCPStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[int] = []
    monkeypatch.setattr("os.kill", lambda _, number: sent.append(number))
    first = Heartbeat(store, 0, 2)

    def gone() -> None:
        raise RuntimeError("Broken pipe")

    first._look = gone  # type: ignore[method-assign]
    first.start()
    wait_for(lambda: sent)
    first.leave(None)
    assert sent == [signal.SIGTERM]
    assert "launcher" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "message", "raised"),
    [
        ("seenet.data.folder, line 31", "[gloo] Timed out waiting 3600000ms", r"rank 1 \(host \S+, pid \d+\): lives, .*folder, line 31"),
        (WAITING, "[gloo] Timed out waiting 3600000ms", "Timed out"),
        ("seenet.data.folder, line 31", "[gloo] Connection closed by peer", "Connection closed"),
    ],
)
def test_one_that_lives_and_does_not_come(store: TCPStore, monkeypatch: pytest.MonkeyPatch, place: str, message: str, raised: str) -> None:
    monkeypatch.setattr(heartbeat, "whereabouts", lambda _: place)
    second = Heartbeat(store, 1, 2)
    second.start()

    def fail() -> None:
        with beating(store, 0, 2), naming_lost():
            wait_for(lambda: heartbeat._current and heartbeat._current.seen[1].word)
            raise RuntimeError(message)

    with pytest.raises((LostError, RuntimeError), match=raised):
        fail()
    second.leave(None)


def test_an_operations_error_becomes_the_name_and_another_stays(store: TCPStore) -> None:
    second = Heartbeat(store, 1, 2)
    second.start()
    with pytest.raises(RuntimeError, match="shape mismatch"), beating(store, 0, 2), naming_lost():
        raise RuntimeError("shape mismatch")

    def fail() -> None:
        with beating(store, 0, 2), naming_lost():
            wait_for(lambda: heartbeat._current and heartbeat._current.seen[1].word)
            fall_silent(second)
            raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer")

    with pytest.raises(LostError, match=r"rank 1 \(host"):
        fail()
    assert heartbeat._current is None
