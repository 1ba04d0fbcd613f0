"""T1 to T3: killed anywhere, a run goes on as if nothing had been; samples and start-up do not depend on how far it is."""

import json
import os
import shutil
import time
from functools import cache
from pathlib import Path

import numpy as np
import torch

from seenet.data.sampling import StepSampler
from seenet.training import checkpoint
from tests.faults import preload
from tests.faults.fault import Attempt, Fault, expect
from tests.faults.processes import Child, command, forked, seenet, wait_until
from tests.faults.runs import (
    STEPS,
    VALIDATE_EVERY,
    copied,
    lines,
    moment,
    reference,
    same,
    steps_made,
    words,
)


def start(attempt: Attempt, run: Path, real: bool, *settings: str, resume: bool) -> Child:
    line = [*words(run, *settings), *(["--resume"] if resume else [])]
    return command(attempt, "-m", "seenet", *line) if real else seenet(attempt, *line)


def until_start_up(attempt: Attempt, run: Path, child: Child, real: bool) -> None:
    time.sleep(attempt.rng.uniform(0, 10 if real else 2))


def until_training(attempt: Attempt, run: Path, child: Child, real: bool) -> None:
    enough = int(attempt.rng.integers(1, STEPS))
    wait_until(lambda: steps_made(run) >= enough or child.poll() is not None, "steps are made")
    time.sleep(attempt.rng.uniform(0, 0.2))


def until_validation(attempt: Attempt, run: Path, child: Child, real: bool) -> None:
    due = run / "checkpoints" / f"step-{int(attempt.rng.choice([VALIDATE_EVERY, STEPS])):08d}"
    wait_until(lambda: due.exists() or child.poll() is not None, "it validates")
    time.sleep(attempt.rng.uniform(0, 1))


def until_saving(attempt: Attempt, run: Path, child: Child, real: bool) -> None:
    enough = int(attempt.rng.integers(1, STEPS))
    wait_until(lambda: steps_made(run) >= enough or child.poll() is not None, "steps are made")
    saves = run / "checkpoints"
    wait_until(lambda: list(saves.glob(".*")) or child.poll() is not None, "it saves", every=0.0003)
    time.sleep(attempt.rng.uniform(0, 0.01))


MOMENTS = (until_start_up, until_training, until_validation, until_saving)


def gone_on(attempt: Attempt, run: Path, real: bool, *settings: str) -> Child:
    """Start again with --resume; where the first start was killed before it had written anything, without."""
    child = start(attempt, run, real, *settings, resume=True)
    if child.wait() == 4 and "start it without --resume" in child.last_line():
        expect(steps_made(run) == 0, f"does not go on: {child.last_line()}")
        child = start(attempt, run, real, *settings, resume=False)
        child.wait()
    expect(child.code == 0, f"the resumed run ended with {child.code}: {child.last_line()}")
    return child


def killed(attempt: Attempt) -> None:
    """Every second try is killed twice; every fifth runs the command itself, others are forked."""
    settings = f"training.workers={2 * (attempt.number // 4 % 2)}"
    run, real, whole = attempt.folder / "run", attempt.number % 5 == 4, reference()
    for turn in range(1 + attempt.number % 2):
        begun = steps_made(run) > 0
        child = start(attempt, run, real, settings, resume=begun)
        MOMENTS[(attempt.number + turn) % 4](attempt, run, child, real)
        child.kill()
        expect(child.code in {0, -9}, f"ended by itself with {child.code}: {child.last_line()}")
        attempt.note("had ended" if child.code == 0 else moment(run))
        if child.code == 0:
            break
    gone_on(attempt, run, real, settings)
    same(run, whole)


LEAST_CALLS = 50
"""Of a run, many times over."""


@cache
def calls_of_a_run() -> int:
    """That change a file, from start to end; told by a child, where the calls are made."""
    folder = reference().parent / "counted"
    attempt = Attempt(0, np.random.default_rng(0), folder)
    folder.mkdir()

    def work() -> None:
        preload.arm(folder, -1, 0)
        run_here(folder / "run")
        count = preload.calls()
        preload.arm(Path("/nowhere"), -1, 0)
        (reference().parent / "calls").write_text(str(count))

    expect(forked(attempt, work).wait() == 0, "cannot be counted")
    return int((reference().parent / "calls").read_text())


def run_here(run: Path) -> None:
    from seenet.core.recipe_files import load_recipe
    from seenet.training.stages import train_recipe

    train_recipe(
        load_recipe("shapes", [word for word in words(run)[2:] if "=" in word]), run, device="cpu"
    )


def killed_at_a_call(attempt: Attempt) -> None:
    """The first calls, of the start, in turn; then any."""
    run, whole = attempt.folder / "run", reference()
    call = (
        attempt.number if attempt.number < 50 else int(attempt.rng.integers(50, calls_of_a_run()))
    )

    def work() -> None:
        preload.arm(run, call, 0)
        run_here(run)

    child = forked(attempt, work)
    if child.wait() == 0 and call > LEAST_CALLS:
        # Some calls depend on the clock: this run made a few less than the one that was counted.
        attempt.note("the last calls")
        shutil.rmtree(run)
        call -= LEAST_CALLS
        child = forked(attempt, work)
        child.wait()
    expect(
        child.code == -9, f"call {call} never came, ended with {child.code}: {child.last_line()}"
    )
    attempt.note(moment(run))
    gone_on(attempt, run, False)
    same(run, whole)


def any_number_of_ranks(attempt: Attempt) -> None:
    """T2: the same samples in every step, by 1, 2 and 4 ranks, with any micro-batches, from any step on."""
    rng = attempt.rng
    count, batch, seed = (
        int(rng.integers(1, 200)),
        8 * int(rng.integers(1, 4)),
        int(rng.integers(1000)),
    )
    first, last = sorted(rng.integers(0, 500, 2).tolist())
    expected: list[list[object]] | None = None
    for world, accumulate in ((1, 1), (2, 1), (4, 1), (2, 4), (1, 8)):
        ranks = [
            list(
                StepSampler(
                    count, batch, seed, first, last, rank=rank, world=world, accumulate=accumulate
                )
            )
            for rank in range(world)
        ]
        parts = [
            [part for rank in ranks for part in rank[step * accumulate : (step + 1) * accumulate]]
            for step in range(last - first)
        ]
        found = [[draw for part in step for draw in part] for step in parts]
        expect(expected is None or found == expected, f"{world} ranks x {accumulate} draw others")
        expected = found


def resume_time(attempt: Attempt) -> None:
    """T3: from the start to the first step, early and late in a long run, in turns; the same run with another number of steps made."""
    long = (
        "training.steps=1000000",
        "training.validate_every=0",
        "training.checkpoint_every=1000000",
    )
    run = attempt.folder / "run"
    child = seenet(attempt, *words(run, *long))
    wait_until(lambda: steps_made(run) >= 2 or child.poll() is not None, "steps are made")
    os.kill(child.pid, 15)
    expect(child.wait() == 143, f"ended with {child.code}: {child.last_line()}")
    seconds: dict[int, list[float]] = {10: [], 900_000: []}
    for step in [*seconds] * 3:
        copy = copied(attempt, run, f"run-{step}-{len(seconds[step])}")
        found = checkpoint.newest(copy / "checkpoints")
        assert found is not None
        checkpoint.save(
            copy / "checkpoints",
            step,
            checkpoint.Checkpoint(found.tensors, {**found.state, "step": step}),
            1,
        )
        started, before = time.monotonic(), len(lines(copy))
        child = seenet(attempt, *words(copy, *long), "--resume")
        wait_until(lambda copy=copy, before=before: len(lines(copy)) > before, "it goes on")  # type: ignore[misc]
        seconds[step].append(time.monotonic() - started)
        child.kill()
        expect(lines(copy)[-1]["step"] > step, "went on elsewhere")
    early, late = (min(values) for values in seconds.values())
    expect(late < 1.5 * early + 0.5, f"{late:.1f} s late in a run, {early:.1f} s early")


def plain_loop(run: Path, resume: bool) -> None:
    """The known-bad baseline: shuffled batches, and `torch.save` of model and optimizer now and then."""
    torch.manual_seed(0)
    data = torch.randn(60, 3, 24, 24)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 3), torch.nn.BatchNorm2d(64), torch.nn.Conv2d(64, 1, 3)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    step, order = 0, iter(())
    if resume and (run / "last.pt").exists():
        found = torch.load(run / "last.pt", weights_only=False)
        model.load_state_dict(found["model"])
        optimizer.load_state_dict(found["optimizer"])
        step = found["step"]
    with (run / "losses").open("a") as file:
        while step < 60:
            batch = next(order, None)
            if batch is None:
                order = iter(torch.randperm(len(data)).split(4))
                continue
            loss = (model(data[batch]) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            file.write(json.dumps([step, loss.item()]) + "\n")
            file.flush()
            if step % 5 == 0:
                torch.save(
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "step": step,
                    },
                    run / "last.pt",
                )


def plain_loop_killed(attempt: Attempt) -> None:
    folders = [attempt.folder / name for name in ("whole", "cut")]
    for folder in folders:
        folder.mkdir()
    expect(
        forked(attempt, lambda: plain_loop(folders[0], False)).wait() == 0, "the loop does not run"
    )
    child = forked(attempt, lambda: plain_loop(folders[1], False))
    wait_until(
        lambda: (folders[1] / "losses").exists() or child.poll() is not None, "steps are made"
    )
    time.sleep(attempt.rng.uniform(0, 0.2))
    child.kill()
    child = forked(attempt, lambda: plain_loop(folders[1], True))
    expect(child.wait() == 0, f"cannot go on: {child.last_line()}")
    whole, cut = (
        dict(json.loads(line) for line in (folder / "losses").read_text().splitlines())
        for folder in folders
    )
    expect(whole == cut, "losses differ")


FAULTS = [
    Fault(
        "T1.moment",
        "`kill -9` at a random moment, once or twice, with 0 and 2 workers, then --resume: the result is that of an uninterrupted run",
        50,
        killed,
    ),
    Fault(
        "T1.call",
        "`kill -9` in the n-th call that changes a file: the first 50 calls, then random ones",
        100,
        killed_at_a_call,
        preload.missing,
    ),
    Fault(
        "T2",
        "1, 2, 4 ranks, micro-batches, any first step: every step has the same samples",
        100,
        any_number_of_ranks,
    ),
    Fault(
        "T3",
        "resume at step 10 and at step 900,000: the next step comes after the same time",
        5,
        resume_time,
    ),
    Fault(
        "B.T1.moment",
        "the same kills, with a plain loop and `torch.save`",
        10,
        plain_loop_killed,
        must_fail=True,
    ),
]
