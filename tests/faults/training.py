"""T1 to T6, T8: a run is killed, stopped, started twice, or loses a rank; then it is resumed."""

import json
import os
import signal
import socket
import time
from functools import partial
from pathlib import Path

import torch

from seenet.core.recipe_files import load_recipe
from seenet.data.sampling import StepSampler
from seenet.distributed import ANSWER_TIMEOUT
from seenet.training import checkpoint
from seenet.training.stages import train_recipe
from tests.faults.fault import Attempt
from tests.faults.numbers import FACTORY
from tests.faults.preload import arm
from tests.faults.processes import Child, wait_until
from tests.faults.runs import SETTINGS, STEPS, VALIDATE_EVERY, moment, same, train, until_training
from tests.training.tiny import lines, losses

FIRST_CALLS, CALLS = 50, 400
"""Calls of the start of a run, which are all tried; calls of a run that change a file, about."""
SECONDS = 15
"""From a signal to the end, at most."""
TIMEOUT = 30
"""Seconds that an operation waits for a frozen rank."""
FROZEN_SECONDS = TIMEOUT + 2 * ANSWER_TIMEOUT.seconds + 30 + 2 * SECONDS
"""The operation, the roll call on rank 1, torchrun's patience with a process that does not end."""
TWO_RANKS = (
    "training.steps=400",
    "training.checkpoint_every=400",
    "training.workers=1",
    f"training.timeout_minutes={TIMEOUT / 60}",
)


def start(attempt: Attempt, *, resume: bool) -> Child:
    """Start or resume a run with 0 or 2 workers; every fifth try as from a shell."""
    workers = f"training.workers={2 * (attempt.number // 4 % 2)}"
    return train(attempt, workers, resume=resume, ranks=int(attempt.number % 5 == 4))


def wait_for_moment(attempt: Attempt, child: Child, which: int) -> None:
    """Wait until start-up, training, validation or saving, and a random time more."""
    start_up = 10 if attempt.number % 5 == 4 else 2
    saves, seconds = attempt.run / "checkpoints", (start_up, 0.2, 1, 0.01)[which]
    if which in {1, 3}:
        until_training(attempt, child)
    if which == 2:
        step = int(attempt.rng.choice([VALIDATE_EVERY, STEPS]))
        child.until((saves / f"step-{step:08d}").exists, "it validates")
    if which == 3:
        child.until(lambda: list(saves.glob(".*")), "it saves", every=0.0003)
    time.sleep(attempt.rng.uniform(0, seconds))


def resumed(attempt: Attempt) -> None:
    """Resume to the end; a run that was killed before it wrote anything starts again instead."""
    child = start(attempt, resume=True)
    if child.ends(0, 4) == 4:
        assert "start it without --resume" in child.last_line, child.last_line
        assert not losses(attempt.run)
        start(attempt, resume=False).ends(0)
    same(attempt.run)


def killed(attempt: Attempt) -> None:
    """T1.moment: every second try is killed twice."""
    for turn in range(1 + attempt.number % 2):
        child = start(attempt, resume=bool(losses(attempt.run)))
        wait_for_moment(attempt, child, (attempt.number + turn) % 4)
        if child.kill() == 0:
            attempt.note("had ended")
            break
        attempt.note(moment(attempt.run))
    resumed(attempt)


def killed_at_a_call(attempt: Attempt) -> None:
    call = attempt.number
    if call >= FIRST_CALLS:
        call = int(attempt.rng.integers(FIRST_CALLS, CALLS))

    def work() -> None:
        arm(attempt.run, call)
        train_recipe(load_recipe("shapes", list(SETTINGS)), attempt.run, device="cpu")

    # Some calls depend on the clock.
    done = Child(attempt, work).ends(0, -signal.SIGKILL) == 0
    attempt.note("had ended" if done else moment(attempt.run))
    resumed(attempt)


def any_number_of_ranks(attempt: Attempt) -> None:
    """T2: ranks and micro-batches draw the samples of one process, in each step."""
    count, batch, seed = (int(attempt.rng.integers(1, most)) for most in (200, 4, 1000))
    steps = sorted(attempt.rng.integers(0, 500, 2).tolist())
    sampler = partial(StepSampler, count, 8 * batch, seed, *steps)
    for world, accumulate in ((2, 1), (4, 1), (2, 4), (1, 8)):
        ranks = [sampler(rank=rank, world=world, accumulate=accumulate) for rank in range(world)]
        shares = [zip(*[iter(rank)] * accumulate, strict=True) for rank in ranks]
        drawn = [
            [draw for share in step for part in share for draw in part]
            for step in zip(*shares, strict=True)
        ]
        assert drawn == list(sampler()), f"{world} ranks x {accumulate}"


def resume_time(attempt: Attempt) -> None:
    """T3: the time from the start to the first step, early and late in a long run."""
    long = ("training.steps=1000000", "training.validate_every=0")
    child = train(attempt, *long)
    child.until(lambda: len(losses(attempt.run)) >= 2, "steps are made")
    os.kill(child.pid, signal.SIGTERM)
    child.ends(143)
    root, seconds = attempt.run / "checkpoints", []
    saved = checkpoint.newest(root)
    for step in (10, 900_000):
        state = checkpoint.Checkpoint(saved.tensors, {**saved.state, "step": step})
        checkpoint.save(root, step, state, keep=1)
        started, child = time.monotonic(), train(attempt, *long, resume=True)
        child.until(lambda step=step: lines(attempt.run)[-1]["step"] > step, "it continues")
        seconds.append(time.monotonic() - started)
        assert child.kill() != 0
    early, late = seconds
    assert late < 1.5 * early + 2, f"{late:.1f} s late in a run, {early:.1f} s early"


def plain_loop(run: Path) -> None:
    """Known-bad baseline: `torch.save` now and then; the random generator is forgotten."""
    run.mkdir(exist_ok=True)
    last, made, weight = run / "last.pt", 0, torch.zeros(10_000)
    if last.exists():
        made, weight = torch.load(last, weights_only=False)
    torch.manual_seed(0)
    with (run / "losses").open("a") as file:
        for step in range(made + 1, 61):
            weight = weight + torch.randn(10_000)
            print(step, weight.norm().item(), file=file, flush=True)
            time.sleep(0.005)
            if step % 5 == 0:
                torch.save((step, weight), last)


def plain_loop_killed(attempt: Attempt) -> None:
    whole, loop = attempt.folder / "whole", partial(plain_loop, attempt.run)
    Child(attempt, partial(plain_loop, whole)).ends(0)
    child = Child(attempt, loop)
    child.until((attempt.run / "losses").exists, "steps are made")
    time.sleep(attempt.rng.uniform(0, 0.3))
    child.kill()
    Child(attempt, loop).ends(0)
    first, second = ((run / "losses").read_text().splitlines() for run in (whole, attempt.run))
    assert set(first) == set(second)


def saved_after(run: Path, before: int) -> None:
    """Require one more step at most, and a checkpoint of the last step."""
    made, last = len(losses(run)), checkpoint.newest(run / "checkpoints")
    assert made <= before + 1, f"{made - before} steps were made after the signal"
    assert made == (last.state["step"] if last else 0)


def signalled(number: signal.Signals, code: int, attempt: Attempt) -> None:
    """T4.process, T5.once: a signal to the process or its group, at start-up or later."""
    workers = f"training.workers={2 * (attempt.number % 2)}"
    child = train(attempt, workers)
    if number == signal.SIGTERM and attempt.number % 5 == 0:
        time.sleep(attempt.rng.uniform(0.1, 2))
    else:
        until_training(attempt, child, 0.5)
    started = time.monotonic()
    (os.killpg if attempt.number // 2 % 2 else os.kill)(child.pid, number)
    before, done = len(losses(attempt.run)), child.ends(0, code) == 0
    assert time.monotonic() - started < SECONDS
    attempt.note("had ended" if done else moment(attempt.run))
    wait_until(lambda: not attempt.processes(), "its workers end", 10)
    if not done:
        saved_after(attempt.run, before)
    if losses(attempt.run):
        train(attempt, workers, resume=True).ends(0)
        same(attempt.run)


def on_two_ranks(
    number: signal.Signals, whom: str, codes: set[int], seconds: float, attempt: Attempt
) -> None:
    """T4, T8: a signal to the launcher or to one of two ranks; the other rank ends with a code."""
    lost = attempt.number % 2
    # Validation would wait for a lost rank for an hour.
    validate = f"training.validate_every={40 if number == signal.SIGTERM else 0}"
    launcher = train(attempt, *TWO_RANKS, validate, ranks=2)
    until_training(attempt, launcher, 0.5)
    # Rank 0 holds the lock: `host NAME pid NUMBER ...`.
    first = int((attempt.run / "lock").read_text().split()[3])
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ranks = sorted(map(int, children), key=lambda pid: pid != first)
    assert len(ranks) == 2, f"no two ranks: {launcher.last_line}"
    attempt.note(f"rank {lost}, {moment(attempt.run)}")
    os.kill(launcher.pid if whom == "launcher" else ranks[lost], number)
    before = len(losses(attempt.run))
    wait_until(lambda: not set(ranks) & set(attempt.processes()), "both ranks end", seconds)
    assert launcher.ends() != 0
    ends = json.loads((attempt.run / "exit.json").read_text())
    assert ends[str(1 - lost)]["code"] in codes, ends
    wait_until(lambda: not attempt.processes(), "no process is left", 10)
    if number == signal.SIGTERM:
        assert ends[str(lost)]["code"] in codes, ends
        saved_after(attempt.run, before)
    if number == signal.SIGSTOP:
        assert ends[str(1 - lost)]["reason"].startswith(f"rank {lost} does not answer"), ends


def interrupted_twice(attempt: Attempt) -> None:
    """T5: in a step of a minute the first Ctrl-C waits for the step, the second does not."""
    slow = {"SEENET_FAULT": f"slow-60:{attempt.rng.integers(1, 10)}:0"}
    child = train(attempt, *FACTORY, environment=slow)
    child.until((attempt.folder / "waiting").exists, "the slow step begins")
    os.kill(child.pid, signal.SIGINT)
    time.sleep(attempt.rng.uniform(0.05, 1))
    assert child.exitcode is None, "the first Ctrl-C did not wait for the step"
    started = time.monotonic()
    os.kill(child.pid, signal.SIGINT)
    child.ends(130)
    assert time.monotonic() - started < 5, "the second Ctrl-C waited"
    train(attempt, *FACTORY, resume=True).ends(0)


def second_process(attempt: Attempt) -> None:
    """T6: the run is busy while its process is stopped, and free once it is killed."""
    first = train(attempt)
    until_training(attempt, first)
    os.kill(first.pid, signal.SIGSTOP)
    assert first.exitcode is None, "had ended before a second one could come"
    for resume in (False, True):
        second = train(attempt, resume=resume)
        second.ends(75)
        said = second.last_line
        assert f"host {socket.gethostname()} pid {first.pid}" in said, said
    if attempt.number % 2:
        os.kill(first.pid, signal.SIGCONT)
        first.ends(0)
    else:
        first.kill()
        train(attempt, resume=True).ends(0)
    same(attempt.run)
