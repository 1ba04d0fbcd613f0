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
from types import SimpleNamespace

import pytest
from PIL import Image

from seenet.core import processor
from seenet.core.errors import BusyError, CheckError, DataError, PassingError
from seenet.core.files import cache_folder, sha256
from seenet.export import bundle_cache, run
from tests.prediction.bundles import write_red


def exported(model: Path, out: Path, pictures: object) -> None:
    """As `seenet export` leaves it."""
    write_red(out)
    out.with_name(f"{out.name}.check.json").write_text(json.dumps({"files": {out.name: sha256(out)}}))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"a model")
    return path


def make(model: Path) -> Path:
    return bundle_cache.bundle(model, "onnx", lambda: [])


def left() -> list[str]:
    return sorted(path.name for path in (cache_folder() / "bundles").iterdir() if path.name != "lock")


def counted(monkeypatch: pytest.MonkeyPatch, export: Callable[..., None] = exported) -> list[Path]:
    calls: list[Path] = []
    monkeypatch.setattr(bundle_cache, "_export", lambda model, out, pictures, *_: (calls.append(out), export(model, out, pictures))[1])
    return calls


def test_it_is_made_once_for_the_same_file_and_versions(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    assert not bundle_cache.present(model, "onnx")
    one = make(model)
    assert make(model) == one and bundle_cache.present(model, "onnx")
    assert left() == [one.name, f"{one.name}.check.json"]
    monkeypatch.setattr(bundle_cache, "versions", lambda: {"torch": "2.10"})
    other = make(model)
    model.write_bytes(b"another model")
    assert len({one, other, make(model)}) == 3 == len(calls)


@pytest.mark.parametrize("harm", ["cut", "table", "lost"])
def test_a_damaged_one_is_made_again(model: Path, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    one = make(model)
    if harm == "cut":
        one.write_bytes(one.read_bytes()[:-1])
    elif harm == "table":
        one.with_name(f"{one.name}.check.json").write_text("[]")
    else:
        one.unlink()
    whole = sha256(make(model))
    assert len(calls) == 2
    assert json.loads(one.with_name(f"{one.name}.check.json").read_text())["files"] == {one.name: whole}


def test_a_killed_or_failed_build_leaves_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache_folder() / "bundles" / "building").mkdir(parents=True)
    (cache_folder() / "bundles" / "building" / "half.onnx").write_bytes(b"half")

    def stop(model: Path, out: Path, pictures: object) -> None:
        assert list(out.parent.iterdir()) == []
        out.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        counted(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            make(model)
    assert left() == []


def fails(model: Path, *, passing: bool, match: str, **options: float) -> None:
    with pytest.raises(DataError, match=match) as caught:
        bundle_cache.bundle(model, "onnx", lambda: [Path("-odd.png")], **options)
    assert bundle_cache.is_temporary(caught.value) == isinstance(caught.value, PassingError) == passing
    assert left() == []


def test_what_stops_an_export_is_said_and_whether_it_lasts(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command: list[str] = []

    def ends(code: int, said: str) -> None:
        def run(words: list[str], **options: object) -> subprocess.CompletedProcess[str]:
            command[:] = words
            return subprocess.CompletedProcess(words, code, "", said)

        monkeypatch.setattr(subprocess, "run", run)

    ends(4, "exporting to onnx\nit answers otherwise\n")
    fails(model, passing=False, match=r"^it answers otherwise$")
    # No name is taken for an option.
    assert command[-1] == str(Path.cwd() / "-odd.png")
    ends(75, "No space left\n")
    fails(model, passing=True, match=r"^No space left$")
    ends(-9, "")
    fails(model, passing=True, match=r"ended with signal 9$")

    def late(words: list[str], *, timeout: float, **options: object) -> None:
        raise subprocess.TimeoutExpired(words, timeout)

    monkeypatch.setattr(subprocess, "run", late)
    fails(model, passing=True, match="not exported within 900 s")
    fails(model, passing=True, match="not exported within 7 s", patience=7)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=69))
    fails(model, passing=True, match=r"take some 0 MiB of disk, 0 are free; make room")
    monkeypatch.setattr(processor, "available_memory", lambda: 2**30)
    fails(model, passing=True, match=r"takes some 2\.0 GiB of memory, 1\.0 are free")


@pytest.mark.slow
def test_the_process_itself_says_why_not(model: Path) -> None:
    Image.new("RGB", (9, 9)).save("-odd.png")
    fails(model, passing=False, match=r"^\S*model\.safetensors: not a readable")


def test_what_the_process_raises_is_sorted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    short = DataError("torch.export stops")
    short.__cause__ = MemoryError()
    for error, code in (
        (CheckError("answers otherwise"), 4), (ValueError("no such operator"), 4), (DataError("torch.export stops"), 4),
        (short, 75), (MemoryError(), 75), (OSError(28, "No space left on device"), 75), (PassingError("make room"), 75),
    ):  # fmt: skip
        monkeypatch.setattr(run, "run_export", lambda *_, _error=error, **__: (_ for _ in ()).throw(_error))
        monkeypatch.setattr(sys, "argv", ["bundles", "model", "out.onnx"])
        with pytest.raises(SystemExit) as ended:
            bundle_cache.main()
        assert ended.value.code == code, error
        assert capsys.readouterr().err.strip()


def test_how_long_it_takes_is_known_from_the_last_time(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def known() -> float:
        return bundle_cache.forecast(model, ["onnx"])

    def takes(seconds: float, error: type[BaseException] | None = None) -> None:
        def export(model: Path, out: Path, pictures: object) -> None:
            now[0] += seconds
            if error:
                raise error("it fails")
            exported(model, out, pictures)

        counted(monkeypatch, export)
        with nullcontext() if error is None else pytest.raises(error):
            make(model)
        bundle_cache.remove(model, "onnx")

    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    default = sum(bundle_cache.SECONDS.values())
    assert (known(), bundle_cache.forecast(model, ["openvino"])) == (bundle_cache.SECONDS["onnx"], default)
    # What failed early says nothing; what failed late will take at least as long.
    takes(1, PassingError)
    assert known() == bundle_cache.SECONDS["onnx"]
    takes(200, PassingError)
    assert known() == 200
    takes(20)
    assert known() == 20
    make(model)
    assert bundle_cache.forecast(model, ["onnx"]) == 0
    assert bundle_cache.forecast(model, ["onnx", "openvino"]) == bundle_cache.SECONDS["openvino"]


def test_a_cache_that_cannot_be_written_is_named(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="XDG_CACHE_HOME"):
        make(model)


def test_removed_is_gone(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch)
    make(model)
    bundle_cache.remove(model, "openvino")
    assert bundle_cache.present(model, "onnx")
    bundle_cache.remove(model, "onnx")
    assert left() == []


def test_another_exporter_is_waited_for_by_name_and_not_for_ever(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    lock = cache_folder() / "bundles" / "lock"

    def export(model: Path, out: Path, pictures: object) -> None:
        seen.append(lock.read_text())
        exported(model, out, pictures)

    counted(monkeypatch, export)
    lock.parent.mkdir(parents=True)
    with lock.open("w") as other, caplog.at_level(logging.INFO, "seenet"):
        other.write("host here pid 1")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with monkeypatch.context() as patch:
            patch.setattr(bundle_cache, "WAIT_SECONDS", 0.3)
            with pytest.raises(BusyError, match=r"lock: held by host here pid 1 for over 0\.3 s; .* --runtime eager"):
                make(model)
        with pytest.raises(BusyError, match=r"over 0\.1 s"):
            bundle_cache.bundle(model, "onnx", lambda: [], patience=0.1)
        assert left() == [] and lock.read_text() == "host here pid 1"
        threading.Timer(0.3, lambda: fcntl.flock(other, fcntl.LOCK_UN)).start()
        make(model)
    assert [record.getMessage() for record in caplog.records] == 3 * ["waiting for host here pid 1, which makes an export"]
    assert len(seen) == 1 and f" pid {os.getpid()} since " in seen[0]


def test_each_holder_has_its_own_time(model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    counted(monkeypatch)
    monkeypatch.setattr(bundle_cache, "WAIT_SECONDS", 0.7)
    path = cache_folder() / "bundles" / "lock"
    path.parent.mkdir(parents=True)
    with path.open("w") as other, caplog.at_level(logging.INFO, "seenet"):
        fcntl.flock(other, fcntl.LOCK_EX)

        def work() -> None:
            for number in range(4):
                path.write_text(f"pid {number}")
                time.sleep(0.4)
            fcntl.flock(other, fcntl.LOCK_UN)

        thread = threading.Thread(target=work)
        thread.start()
        make(model)
        thread.join()
    assert len(caplog.records) >= 3


def test_an_export_holds_the_lock_itself(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one whose parent was killed is not taken for nobody."""

    def run(words: list[str], *, pass_fds: tuple[int, ...], **_: object) -> subprocess.CompletedProcess[str]:
        assert [Path(f"/proc/self/fd/{number}").resolve().name for number in pass_fds] == ["lock"]
        exported(model, Path(words[4]), ())
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert make(model).is_file()
