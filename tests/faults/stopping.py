"""T4 to T6, T8: SIGTERM, Ctrl-C, a second process on a run, a rank that is lost."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from seenet.training import checkpoint
from tests.faults.fault import Attempt, Fault, expect
from tests.faults.processes import Child, descendants, ended, rank_of, seenet, torchrun, wait_until
from tests.faults.runs import moment, reference, same, steps_made, trained, words

SECONDS = 15
"""From the signal to the end, at most."""
TIMEOUT = 30
"""Of the process group, seconds, in T8."""
RANKS = (
    "training.steps=400",
    "training.validate_every=40",
    "training.checkpoint_every=400",
    "training.workers=1",
)


def ended_as_asked(run: Path, before: int) -> None:
    """One step more at most, and what was made is saved."""
    made = steps_made(run)
    expect(made <= before + 1, f"{made - before} steps were made after the signal")
    found = checkpoint.newest(run / "checkpoints")
    expect((found.state["step"] if found else 0) == made, "the last step is not saved")


def until_somewhere(attempt: Attempt, run: Path, child: Child) -> None:
    """A step that was made, and a moment more: training, saving or validation."""
    enough = int(attempt.rng.integers(1, 12))
    wait_until(lambda: steps_made(run) >= enough or child.poll() is not None, "steps are made")
    time.sleep(attempt.rng.uniform(0, 0.5))


def wait_for_end(child: Child, started: float) -> None:
    child.wait()
    expect(time.monotonic() - started < SECONDS, f"took {time.monotonic() - started:.1f} s to end")


def terminated(attempt: Attempt) -> None:
    """To the process alone or to its group, as a shell or a scheduler would."""
    run, settings = attempt.folder / "run", f"training.workers={2 * (attempt.number % 2)}"
    child = seenet(attempt, *words(run, settings))
    if attempt.number % 5 == 0:
        time.sleep(attempt.rng.uniform(0.1, 2))
    else:
        until_somewhere(attempt, run, child)
    below, started = descendants(attempt, child.pid), time.monotonic()
    if attempt.number // 2 % 2:
        os.killpg(child.pid, signal.SIGTERM)
    else:
        os.kill(child.pid, signal.SIGTERM)
    before = steps_made(run)
    wait_for_end(child, started)
    if child.code == 0:
        attempt.note("had ended")
    else:
        expect(child.code == 143, f"ended with {child.code}: {child.last_line()}")
        attempt.note(moment(run))
        ended_as_asked(run, before)
    wait_until(lambda: all(map(ended, below)), "its workers end", 10)
    if steps_made(run) and child.code:
        trained(attempt, run, settings, resume=True)
        same(run, reference())


def two_ranks(attempt: Attempt, launcher: Child) -> tuple[list[int], dict[int, int]]:
    """All processes below the launcher, and those of the two ranks."""
    below = descendants(attempt, launcher.pid)
    ranks = {rank: pid for pid in reversed(below) if (rank := rank_of(pid)) is not None}
    expect(ranks.keys() == {0, 1}, f"no two ranks: {launcher.last_line()}")
    return below, ranks


def exit_codes(run: Path) -> dict[str, int | None]:
    return {
        rank: entry["code"] for rank, entry in json.loads((run / "exit.json").read_text()).items()
    }


def lost_rank(number: signal.Signals, codes: set[int], seconds: float) -> Callable[[Attempt], None]:
    """T8, in training; a validation waits for an hour. The launcher waits 30 s for a frozen one before it kills it."""

    def run(attempt: Attempt) -> None:
        folder = attempt.folder / "run"
        launcher = torchrun(
            attempt,
            *words(
                folder,
                *RANKS,
                "training.validate_every=0",
                f"training.timeout_minutes={TIMEOUT / 60}",
            ),
        )
        until_somewhere(attempt, folder, launcher)
        below, ranks = two_ranks(attempt, launcher)
        lost = attempt.number % 2
        attempt.note(f"rank {lost}, {moment(folder)}")
        os.kill(ranks[lost], number)
        wait_until(lambda: all(map(ended, ranks.values())), "both ranks end", seconds)
        expect(launcher.wait() != 0, "torchrun says that all went well")
        expect(exit_codes(folder)[str(1 - lost)] in codes, f"exit.json says {exit_codes(folder)}")
        wait_until(lambda: all(map(ended, below)), "nothing of it is left", 10)

    return run


def terminated_ranks(target: str) -> Callable[[Attempt], None]:
    def run(attempt: Attempt) -> None:
        folder = attempt.folder / "run"
        launcher = torchrun(attempt, *words(folder, *RANKS))
        until_somewhere(attempt, folder, launcher)
        below, ranks = two_ranks(attempt, launcher)
        os.kill(launcher.pid if target == "launcher" else ranks[attempt.number % 2], signal.SIGTERM)
        before = steps_made(folder)
        wait_until(lambda: all(map(ended, ranks.values())), "both ranks end", SECONDS)
        attempt.note(moment(folder))
        expect(launcher.wait() != 0, "torchrun says that all went well")
        codes = exit_codes(folder)
        expect(codes == {"0": 143, "1": 143}, f"exit.json says {codes}")
        ended_as_asked(folder, before)
        wait_until(lambda: all(map(ended, below)), "nothing of it is left", 10)

    return run


def interrupted_once(attempt: Attempt) -> None:
    run = attempt.folder / "run"
    child = seenet(attempt, *words(run))
    until_somewhere(attempt, run, child)
    os.kill(child.pid, signal.SIGINT)
    before = steps_made(run)
    child.wait()
    if child.code == 0:
        attempt.note("had ended")
        return
    expect(child.code == 130, f"ended with {child.code}: {child.last_line()}")
    attempt.note(moment(run))
    ended_as_asked(run, before)
    trained(attempt, run, resume=True)
    same(run, reference())


def interrupted_twice(attempt: Attempt) -> None:
    """In a step that takes a minute: the first waits for it, the second does not."""
    run, settings = attempt.folder / "run", "transforms.custom=tests.faults.network:slow"
    child = seenet(attempt, *words(run, settings))
    until_somewhere(attempt, run, child)
    (attempt.folder / "slow").touch()
    wait_until(
        lambda: (attempt.folder / "waiting").exists() or child.poll() is not None,
        "the slow step is under way",
    )
    if child.poll() is not None:
        attempt.note("had ended")
        return
    os.kill(child.pid, signal.SIGINT)
    time.sleep(attempt.rng.uniform(0.05, 1))
    expect(child.poll() is None, "the first Ctrl-C did not wait for the step")
    started = time.monotonic()
    os.kill(child.pid, signal.SIGINT)
    child.wait()
    expect(child.code == 130, f"ended with {child.code}: {child.last_line()}")
    expect(time.monotonic() - started < 5, "the second Ctrl-C waited")
    (attempt.folder / "slow").unlink()
    trained(attempt, run, settings, resume=True)


def second_process(attempt: Attempt) -> None:
    """T6; the lock of a killed run is taken over at once."""
    run = attempt.folder / "run"
    first = seenet(attempt, *words(run))
    until_somewhere(attempt, run, first)
    os.kill(first.pid, signal.SIGSTOP)
    expect(first.poll() is None, "had ended before a second one could come")
    for resume in ([], ["--resume"]):
        second = seenet(attempt, *words(run), *resume)
        expect(
            second.wait() == 75, f"the second one ended with {second.code}: {second.last_line()}"
        )
        expect(
            f"host {socket.gethostname()} pid {first.pid}" in second.last_line(),
            f"said {second.last_line()}",
        )
    if attempt.number % 2:
        os.kill(first.pid, signal.SIGCONT)
        expect(first.wait() == 0, f"the first one was disturbed: {first.last_line()}")
    else:
        first.kill()
        trained(attempt, run, resume=True)
    same(run, reference())


FAULTS = [
    Fault(
        "T4.process",
        "SIGTERM to a run or its process group: exit 143 after the step, saved, no process left; then --resume",
        20,
        terminated,
    ),
    Fault(
        "T4.launcher",
        "SIGTERM to torchrun's launcher, two ranks: both exit 143 after the step, saved",
        20,
        terminated_ranks("launcher"),
    ),
    Fault(
        "T4.rank",
        "SIGTERM to one of two ranks: both exit 143 after the step, saved",
        20,
        terminated_ranks("rank"),
    ),
    Fault(
        "T5.once",
        "Ctrl-C: saved, exit 130; then --resume: the result is that of an uninterrupted run",
        10,
        interrupted_once,
    ),
    Fault(
        "T5.twice", "Ctrl-C twice in a step of a minute: exit 130 at once", 10, interrupted_twice
    ),
    Fault(
        "T6",
        "a second process on a run: exit 75 with host and pid; the lock of a killed process is taken over",
        10,
        second_process,
    ),
    Fault(
        "T8.killed",
        "`kill -9` to one of two ranks: the other rank ends too",
        10,
        lost_rank(signal.SIGKILL, {75, 143}, SECONDS),
    ),
    Fault(
        "T8.frozen",
        "`kill -STOP` to one of two ranks: the other exits with 75 within the time-out",
        4,
        lost_rank(signal.SIGSTOP, {75}, TIMEOUT + 30 + 2 * SECONDS),
    ),
]
