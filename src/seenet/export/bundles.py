"""A user's model as a bundle in the cache, exported when it is first wanted."""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

import seenet
from seenet.core.errors import BusyError, DataError
from seenet.core.files import cache_folder, digest, sha256, write_text
from seenet.core.locks import locked
from seenet.core.processor import available_memory

log = logging.getLogger("seenet")

EXPORT_SECONDS = 900
"""About 50 s for the bundled model on two idle cores with AVX2."""
WAIT_SECONDS = 1200
"""For one other process's: an export, and its conversion and verification."""
EXPORT_BYTES = 2 * 2**30
"""Memory that an export takes besides some ten times the model's file: 1.6 GB in all for the bundled model."""
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}


def bundle(model: Path, kind: str, pictures: Callable[[], Sequence[Path]], versions: dict[str, str]) -> Path:
    """The bundle of the model file `model` for `kind` (onnx, openvino), fp32, verified on `pictures`; built where the cache has none.

    `versions` are those of the libraries that it depends on. Raises DataError: it cannot be exported, does not answer as the model, takes
    too much time or memory, or the cache cannot be written; BusyError: another process has been exporting into it for too long.
    """
    target = _target(model, kind, versions)
    if _whole(target):
        return target
    try:
        with _alone(target.parent) as (temporary, lock):
            if not _whole(target):
                _build(model, target, temporary, pictures(), lock)
    except OSError as error:
        raise DataError(
            f"{target.parent}: cannot be written ({error.strerror or error}); set XDG_CACHE_HOME to a folder that can"
        ) from None
    return target


def remove(model: Path, kind: str, versions: dict[str, str]) -> None:
    """Take a bundle out of the cache, if it is there."""
    path = _target(model, kind, versions)
    parts = (_check(path), path, *([path.with_suffix(".bin")] if kind == "openvino" else []))
    with suppress(OSError):
        for part in parts:
            part.unlink(missing_ok=True)


def present(model: Path, kind: str, versions: dict[str, str]) -> bool:
    """Whether `bundle` would find it."""
    return _whole(_target(model, kind, versions))


def _target(model: Path, kind: str, versions: dict[str, str]) -> Path:
    parts = json.dumps([sha256(model), seenet.__version__, versions], sort_keys=True)
    return cache_folder() / "bundles" / f"{digest(parts)}{SUFFIXES[kind]}"


def _check(path: Path) -> Path:
    """As `seenet export` names it; written last here, so that it says that all is there."""
    return path.with_name(f"{path.name}.check.json")


def _whole(path: Path) -> bool:
    try:
        files = json.loads(_check(path).read_text(encoding="utf-8"))["files"]
        return path.name in files and all(sha256(path.with_name(name)) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[tuple[Path, int]]:
    """A folder to build in, for one process at a time, and the lock's handle; what a killed one left there is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "building"
    with (folder / "lock").open("a+", encoding="utf-8") as lock, ExitStack() as holding:
        _take(lock, holding)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary, lock.fileno()
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _take(lock: TextIO, holding: ExitStack) -> None:
    """Wait for the lock, for each holder as long as an export may take, and say for whom."""
    began, told = time.monotonic(), ""
    while True:
        try:
            holding.enter_context(locked(lock.fileno(), busy="held"))
            break
        except BusyError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
        if holder != told:
            log.info("waiting for %s, which makes an export", holder)
            began, told = time.monotonic(), holder
        if time.monotonic() - began > WAIT_SECONDS:
            raise BusyError(
                f"{lock.name}: held by {holder} for over {WAIT_SECONDS} s; end that one, or do without an export with --runtime eager"
            )
        time.sleep(0.2)
    lock.truncate(0)
    lock.write(f"host {socket.gethostname()} pid {os.getpid()} since {datetime.now():%H:%M:%S}")
    lock.flush()


def _build(model: Path, target: Path, temporary: Path, pictures: Sequence[Path], lock: int) -> None:
    onnx = target.with_suffix(".onnx")
    if target == onnx or not _whole(onnx):
        onnx = temporary / onnx.name
        _export(model, onnx, pictures, lock)
    built = onnx
    if target.suffix == ".xml":
        built = temporary / target.name
        _convert(model, onnx, built, pictures)
    for part in (built.with_suffix(".bin"), built, _check(built)):
        if part.is_file():
            part.replace(target.with_name(part.name))


def _export(model: Path, out: Path, pictures: Sequence[Path], lock: int) -> None:
    """In a process of its own, which gives all its memory back, and holds the lock too: it may outlive this one."""
    available, needed = available_memory(), EXPORT_BYTES + 10 * model.stat().st_size
    if available is not None and available < needed:
        raise DataError(f"{model}: exporting it takes some {needed / 2**30:.1f} GiB of memory, {available / 2**30:.1f} are free")
    command = [sys.executable, "-m", "seenet", "export", os.path.abspath(model), "--format", "onnx", "--out", str(out)]
    for path in pictures:
        command += ["--images", os.path.abspath(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=EXPORT_SECONDS, check=False, pass_fds=(lock,))
    except subprocess.TimeoutExpired:
        raise DataError(f"{model}: not exported within {EXPORT_SECONDS} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise DataError(lines[-1].removeprefix("seenet: ") if lines else f"{model}: the export ended with code {done.returncode}")


def _convert(model: Path, onnx: Path, out: Path, pictures: Sequence[Path]) -> None:
    """OpenVINO reads ONNX in a second, where another export would take minutes; verified as an export is."""
    from seenet.core.images import read_image
    from seenet.export.openvino import read_onnx, write_openvino
    from seenet.export.run import checking_pictures, fitted
    from seenet.export.verify import verify
    from seenet.model.files import load_model
    from seenet.prediction.bundles.bundle import BundlePredictor
    from seenet.prediction.bundles.runtimes import open_bundle
    from seenet.prediction.bundles.trial import open_tried
    from seenet.prediction.predictor import Predictor

    card = open_bundle(onnx).card
    write_openvino(out, read_onnx(onnx.read_bytes()), card)
    saved = load_model(model)
    verification = verify(
        Predictor(saved.model, saved.labels, device="cpu"),
        BundlePredictor(open_tried(out)),
        [fitted(read_image(path), saved) for path in pictures or checking_pictures((), out)],
    )
    verification.check()
    files = {part.name: sha256(part) for part in (out, out.with_suffix(".bin"))}
    write_text(_check(out), json.dumps({"files": files, **verification.result()}, indent=1) + "\n")
