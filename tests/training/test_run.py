"""The folder of a run: its lock, its recipe, its exit record; and signals while it trains."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import seenet
from seenet.core import locks
from seenet.core.errors import BusyError, DataError, UsageError
from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.training.run import IdleSignal, open_run, stop_requests
from seenet.training.trainer import train
from tests.training.tiny import exit_codes, recipe


def test_a_signal_interrupts_idle_time_only_and_only_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.code == 143
        with stop.idle():
            with pytest.raises(IdleSignal):
                signal.raise_signal(signal.SIGTERM)
            # Saving, which follows, is not interrupted.
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.code == 130
        # The second Ctrl-C exits at once.
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_trains_and_scores_without_signal_handlers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "seenet")
    settings = recipe("training.steps=2", "training.workers=1")
    with ThreadPoolExecutor(1) as pool:
        trained = pool.submit(seenet.train, settings, tmp_path / "run", device="cpu").result()
        scored = pool.submit(seenet.evaluate, tmp_path / "run", device="cpu").result()
    assert trained.miou == scored["miou"]
    assert caplog.text.count("not in the main thread") == 1


def test_a_busy_run_names_its_holder_and_leaves_no_lock(tmp_path: Path) -> None:
    handles = len(list(Path("/dev/fd").iterdir()))
    with open_run(tmp_path, recipe(), resume=False):
        with pytest.raises(BusyError, match=f"pid {os.getpid()}"):
            train(recipe(), tmp_path, resume=True, device="cpu")
        assert locks._held
    assert not locks._held
    assert len(list(Path("/dev/fd").iterdir())) == handles


def test_nothing_is_overwritten_or_mixed(tmp_path: Path) -> None:
    settings, run = recipe("training.steps=1"), tmp_path / "run"
    train(settings, run, device="cpu")
    with pytest.raises(DataError, match="--resume"):
        train(settings, run, device="cpu")
    for name, was, now in (("training.batch", 4, 8), ("seed", 0, 1)):
        with pytest.raises(UsageError, match=f": {name} was {was} and is now {now};"):
            train(recipe("training.steps=1", f"{name}={now}"), run, resume=True, device="cpu")
    with pytest.raises(DataError, match="no run to resume"):
        train(settings, tmp_path / "none", resume=True, device="cpu")
    # Files of the user's are refused, a recipe too.
    for name in ("thesis.txt", "recipe.yaml"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("data: {kind: shapes}\n")
        for resume in (False, True, False):
            with pytest.raises(DataError, match=rf"{name} but no run|no run to resume"):
                train(recipe(), tmp_path / name, resume=resume, device="cpu")
        assert (tmp_path / name / name).read_text() == "data: {kind: shapes}\n"


@pytest.mark.parametrize("resume", [False, True])
def test_a_failed_start_can_be_repeated(tmp_path: Path, resume: bool) -> None:
    start = tmp_path / "start.safetensors"
    settings = recipe("training.steps=1", f"training.start_from={start}")
    with pytest.raises(DataError, match=r"start\.safetensors"):
        train(settings, tmp_path / "run", device="cpu")
    assert exit_codes(tmp_path / "run") == {"0": 4}
    network = create_model(**settings.model.model_dump(), num_classes=SHAPES.num_classes)
    save_model(start, network, SHAPES)
    assert train(settings, tmp_path / "run", resume=resume, device="cpu").steps == 1


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("files", [{"lock", "exit.json"}, {"lock", "exit.json", "recipe.yaml"}])
def test_a_start_killed_between_its_first_files_can_be_repeated(
    tmp_path: Path, resume: bool, files: set[str]
) -> None:
    with open_run(tmp_path, recipe(), resume=False):
        for path in tmp_path.iterdir():
            if path.name not in files:
                path.unlink()
    if resume and "recipe.yaml" not in files:
        with pytest.raises(DataError, match="start it without --resume"):
            train(recipe(), tmp_path, resume=True, device="cpu")
        return
    with open_run(tmp_path, recipe(), resume=resume):
        pass
    assert exit_codes(tmp_path) == {"0": 0}


@pytest.mark.parametrize("job", ["job-7", "none"])
def test_a_restarted_job_resumes_and_another_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    """A job is known by its id, or else by its launcher."""

    def start() -> None:
        """Start without --resume, and make a step."""
        with open_run(tmp_path, recipe(), resume=False):
            (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", job)
    start()
    start()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-8" if job == "job-7" else job)
    monkeypatch.setattr("os.getppid", lambda: 1)
    # A job that was refused is refused again when torchrun restarts it.
    for _ in range(2):
        with pytest.raises(DataError, match="--resume"):
            start()
