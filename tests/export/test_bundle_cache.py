"""Bundles in the cache; the export itself is replaced by a bundle made by hand."""

import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from seenet.core import processor
from seenet.core.errors import BusyError, CheckError, DataError, PassingError
from seenet.core.files import cache_folder, sha256
from seenet.export import bundle_cache, run
from tests.prediction.bundles.red import write_red
from tests.prediction.doubles import raising


def exported(model: Path, out: Path, *_: object) -> None:
    """Write what `seenet export` would."""
    write_red(out)
    table = {"files": {out.name: sha256(out)}}
    out.with_name(f"{out.name}.check.json").write_text(json.dumps(table))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"a model")
    return path


def make(model: Path, **options: float) -> Path:
    return bundle_cache.bundle(model, "onnx", lambda: [Path("-odd.png")], **options)


def cached() -> list[str]:
    files = (cache_folder() / "bundles").iterdir()
    return sorted(path.name for path in files if path.name != "lock")


def counted(monkeypatch: pytest.MonkeyPatch, export: Callable[..., None] = exported) -> list[Path]:
    """Replace the export; return the list of files that it will be called for."""
    calls: list[Path] = []
    monkeypatch.setattr(
        bundle_cache, "_export", lambda *given: (calls.append(given[1]), export(*given))
    )
    return calls


def test_a_bundle_is_made_once_for_the_same_file_and_versions(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    assert not bundle_cache.present(model, "onnx")
    one = make(model)
    assert make(model) == one and bundle_cache.present(model, "onnx")
    assert cached() == [one.name, f"{one.name}.check.json"]
    bundle_cache.remove(model, "openvino")
    assert bundle_cache.present(model, "onnx")
    bundle_cache.remove(model, "onnx")
    assert cached() == []
    monkeypatch.setattr(bundle_cache, "versions", lambda: {"torch": "2.10"})
    other = make(model)
    model.write_bytes(b"another model")
    assert len({one, other, make(model)}) == 3 == len(calls)


def test_a_model_is_hashed_once_for_all_questions(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(bundle_cache, "sha256", lambda path: (hashed.append(path), sha256(path))[1])
    counted(monkeypatch)
    assert bundle_cache.forecast(model, bundle_cache.KINDS) > 0
    make(model)
    assert bundle_cache.present(model, "onnx") and not bundle_cache.present(model, "openvino")
    assert hashed.count(model) == 1
    model.write_bytes(b"another model")
    assert not bundle_cache.present(model, "onnx") and hashed.count(model) == 2


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.with_name(f"{path.name}.check.json").write_text("[]"),
        Path.unlink,
    ],
    ids=["cut", "table", "lost"],
)
def test_a_damaged_bundle_is_made_again(
    model: Path, harm: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    one = make(model)
    whole = one.read_bytes()
    harm(one)
    assert make(model).read_bytes() == whole
    assert len(calls) == 2 and bundle_cache.present(model, "onnx")


def test_a_killed_or_failed_build_leaves_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    building = cache_folder() / "bundles" / "building"
    building.mkdir(parents=True)
    (building / "half.onnx").write_bytes(b"half")

    def stop(model: Path, out: Path, *_: object) -> None:
        assert list(out.parent.iterdir()) == []
        out.write_bytes(b"half")
        raise KeyboardInterrupt

    counted(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        make(model)
    assert cached() == []


@pytest.mark.parametrize(
    ("ends", "passing", "message"),
    [
        (CompletedProcess([], 4, "", "exporting\nit answers otherwise\n"), False, "it answers"),
        (CompletedProcess([], 75, "", "No space left\n"), True, "No space left"),
        (CompletedProcess([], -9, "", ""), True, "ended with signal 9"),
        (TimeoutExpired([], 7), True, "not exported within 7 s"),
        ("disk", True, "take some 0 MiB of disk, 0 are free"),
        ("memory", True, r"takes some 2\.0 GiB of memory, 1\.0 are free"),
    ],
)
def test_a_failed_export_says_why_and_whether_it_may_pass(
    model: Path, ends: Any, passing: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def child(words: list[str], **_: object) -> CompletedProcess[str]:
        # No name is taken for an option.
        assert words[-1] == str(Path.cwd() / "-odd.png")
        if isinstance(ends, Exception):
            raise ends
        return ends

    monkeypatch.setattr(subprocess, "run", child)
    if ends == "disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=69))
    if ends == "memory":
        monkeypatch.setattr(processor, "available_memory", lambda: 2**30)
    with pytest.raises(DataError, match=message) as caught:
        make(model, patience=7)
    assert bundle_cache.is_temporary(caught.value) == passing
    assert cached() == []


@pytest.mark.slow
def test_the_child_process_says_why_it_fails(model: Path) -> None:
    Image.new("RGB", (9, 9)).save("-odd.png")
    with pytest.raises(DataError, match=r"model\.safetensors: not a readable") as caught:
        make(model)
    assert not bundle_cache.is_temporary(caught.value)


def caused_by(cause: Exception) -> Exception:
    error = DataError("torch.export stops")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckError("answers otherwise"), 4),
        (ValueError("no such operator"), 4),
        (DataError("torch.export stops"), 4),
        (caused_by(MemoryError()), 75),
        (MemoryError(), 75),
        (OSError(28, "No space left on device"), 75),
        (PassingError("make room"), 75),
    ],
)
def test_the_child_process_sorts_its_errors(
    error: Exception,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, "run_export", raising(error))
    monkeypatch.setattr(sys, "argv", ["bundle_cache", "model", "out.onnx"])
    with pytest.raises(SystemExit) as ended:
        bundle_cache.main()
    assert ended.value.code == code
    assert capsys.readouterr().err.strip()


def test_the_forecast_is_what_the_last_export_took(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    defaults = bundle_cache.SECONDS
    assert bundle_cache.forecast(model, ["onnx"]) == defaults["onnx"]
    assert bundle_cache.forecast(model, ["openvino"]) == sum(defaults.values())
    # An early failure says nothing; after a late one the next may take as long.
    for seconds, error, known in (
        (1, PassingError, defaults["onnx"]),
        (200, PassingError, 200),
        (20, None, 20),
    ):

        def export(*given: Any, seconds: float = seconds, error: Any = error) -> None:
            now[0] += seconds
            (raising(error("it fails")) if error else exported)(*given)

        counted(monkeypatch, export)
        with pytest.raises(error) if error else nullcontext():
            make(model)
        assert bundle_cache.forecast(model, ["onnx"]) == (known if error else 0)
        bundle_cache.remove(model, "onnx")
        assert bundle_cache.forecast(model, ["onnx"]) == known


def test_a_cache_that_cannot_be_written_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(model))
    with pytest.raises(DataError, match="XDG_CACHE_HOME"):
        make(model)


def test_another_exporter_is_waited_for_by_name_and_not_forever(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    holders, lock = [], cache_folder() / "bundles" / "lock"
    lock.parent.mkdir(parents=True)
    counted(monkeypatch, lambda *given: (holders.append(lock.read_text()), exported(*given)))
    with lock.open("w") as other, caplog.at_level(logging.INFO, "seenet"):
        other.write("host here pid 1")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match=r"host here pid 1 .*over 0\.1 s"):
            make(model, patience=0.1)
        assert cached() == [] and lock.read_text() == "host here pid 1"
        threading.Timer(0.3, lambda: fcntl.flock(other, fcntl.LOCK_UN)).start()
        make(model)
    assert sum("waiting for host here pid 1" in message for message in caplog.messages) == 2
    assert len(holders) == 1 and f" pid {os.getpid()} since " in holders[0]


def test_an_export_inherits_the_lock(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of a process that was killed is still held by the export that it started."""

    def child(words: list[str], *, pass_fds: tuple[int, ...], **_: object) -> CompletedProcess[str]:
        assert [Path(f"/proc/self/fd/{number}").resolve().name for number in pass_fds] == ["lock"]
        exported(model, Path(words[4]))
        return CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "run", child)
    assert make(model).is_file()
