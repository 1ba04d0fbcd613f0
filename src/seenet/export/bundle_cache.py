"""Cache of a user's models as bundles, exported when they are first needed."""

import json
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TextIO

import seenet
from seenet.core import processor
from seenet.core.child import REFUSED, refuse, run_module
from seenet.core.errors import BusyError, DataError, PassingError
from seenet.core.files import cache_folder, digest, sha256, write_text
from seenet.core.locks import locked
from seenet.prediction.bundles.bundle import BundlePredictor
from seenet.prediction.bundles.formats import BUNDLE_FORMATS, bundle_files, check_path
from seenet.prediction.bundles.runtimes import open_bundle
from seenet.prediction.bundles.trial import open_tried

log = logging.getLogger("seenet")

SECONDS = {"onnx": 60.0, "openvino": 10.0}
"""Forecast for a machine that has made none: the bundled model takes 50 s and a few more on two
idle cores.
"""
EXPORT_SECONDS = 900
"""Longest export that was asked for."""
WAIT_SECONDS = 1200
"""Longest wait for another process, which exports, converts and verifies."""
EXPORT_BYTES = 2 * 2**30
"""Memory of an export besides some ten times the model's file: the bundled model takes 1.6 GB in
all.
"""
KINDS = ("onnx", "openvino")
"""Formats in the cache."""
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino")
"""Libraries whose versions a bundle depends on."""
TEMPORARY = 75
"""Exit code of an export that failed for a temporary reason."""


def bundle(
    model: Path, kind: str, pictures: Callable[[], Sequence[Path]], *, patience: float | None = None
) -> Path:
    """Return the fp32 bundle of a model file; build and verify it if the cache has none.

    Args:
        model: The model file.
        kind: onnx or openvino.
        pictures: Returns the pictures to verify on.
        patience: Seconds that an export, or waiting for another process's, may last.

    Raises:
        DataError: The model cannot be exported, or the bundle does not answer as it does.
        PassingError: The export needs too much time, memory or disk now, or the cache cannot be
            written.
        BusyError: Another process has been exporting into the cache for too long.
    """
    target = _target(model, kind)
    if _is_complete(target):
        return target
    wait, limit = (WAIT_SECONDS, EXPORT_SECONDS) if patience is None else (patience, patience)
    try:
        with _locked_build_folder(target.parent, wait) as (folder, lock):
            if not _is_complete(target):
                _build(model, target, folder, pictures(), lock, limit)
    except OSError as error:
        raise PassingError(
            f"{target.parent}: cannot be written ({error.strerror or error}); set XDG_CACHE_HOME "
            "to a folder that can"
        ) from None
    return target


def remove(model: Path, kind: str) -> None:
    """Remove a bundle from the cache, if it is there."""
    path = _target(model, kind)
    with suppress(OSError):
        for file in (check_path(path), *bundle_files(path)):
            file.unlink(missing_ok=True)


def present(model: Path, kind: str) -> bool:
    """Return whether the cache has the bundle."""
    return _is_complete(_target(model, kind))


def forecast(model: Path, kinds: Collection[str]) -> float:
    """Return the seconds to make the missing bundles of `kinds`: as long as the last ones took."""
    missing = {kind for kind in kinds if not present(model, kind)}
    if "openvino" in missing and not present(model, "onnx"):
        missing.add("onnx")
    known = _known_seconds()
    return sum(known.get(kind, SECONDS[kind]) for kind in missing)


def versions() -> dict[str, str]:
    """Return the versions of the libraries that bundles and speeds depend on."""
    installed = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def is_temporary(error: BaseException) -> bool:
    """Return whether a failure is temporary, so that trying again may help."""
    cause = error.__cause__
    return (
        isinstance(error, PassingError | BusyError | OSError)
        or processor.lacks_memory(error)
        or (cause is not None and is_temporary(cause))
    )


def model_hash(model: Path) -> str:
    """Return the SHA-256 of a model file, which is read once as long as it stays the same file."""
    stat = model.stat()
    return _hash_of_version(model, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _hash_of_version(model: Path, inode: int, size: int, modified: int) -> str:
    return sha256(model)


def _target(model: Path, kind: str) -> Path:
    key = digest(json.dumps([model_hash(model), seenet.__version__, versions()], sort_keys=True))
    return cache_folder() / "bundles" / f"{key}{BUNDLE_FORMATS[kind].suffix}"


def _is_complete(path: Path) -> bool:
    try:
        files = json.loads(check_path(path).read_text(encoding="utf-8"))["files"]
        return path.name in files and all(
            sha256(path.with_name(name)) == expected for name, expected in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _seconds_file() -> Path:
    machine = f"{processor.name()} {processor.threads()}"
    return cache_folder() / "seconds" / f"{digest(machine)}.json"


def _known_seconds() -> dict[str, float]:
    """Read how long the last export and conversion took on this machine, by kind."""
    try:
        known = json.loads(_seconds_file().read_text(encoding="utf-8"))
        return {kind: float(seconds) for kind, seconds in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


@contextmanager
def _timed(kind: str) -> Iterator[None]:
    """Remember how long the block takes; of a failure only if it took longer than was known."""
    began, known = time.monotonic(), _known_seconds()
    least = known.get(kind, SECONDS[kind])
    try:
        yield
        least = 0.0
    finally:
        known[kind] = round(max(least, time.monotonic() - began), 1)
        with suppress(OSError):
            write_text(_seconds_file(), json.dumps(known) + "\n")


@contextmanager
def _locked_build_folder(cache: Path, patience: float) -> Iterator[tuple[Path, int]]:
    """Make an empty folder to build in, for one process at a time.

    Yields:
        The folder, and the file number of the lock.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / "building"
    with (cache / "lock").open("a+", encoding="utf-8") as lock, ExitStack() as stack:
        _wait_for_lock(lock, stack, patience)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder, lock.fileno()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for_lock(lock: TextIO, stack: ExitStack, patience: float) -> None:
    """Take the lock; wait up to `patience` seconds for each holder, and log its name."""
    began, announced = time.monotonic(), ""
    while True:
        try:
            stack.enter_context(locked(lock.fileno(), busy="held"))
            break
        except BusyError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
        if holder != announced:
            log.info("waiting for %s, which makes an export", holder)
            began, announced = time.monotonic(), holder
        if time.monotonic() - began > patience:
            raise BusyError(
                f"{lock.name}: held by {holder} for over {patience:.3g} s; end that process, or do "
                "without an export with --runtime eager"
            )
        time.sleep(0.2)
    lock.truncate(0)
    lock.write(f"host {socket.gethostname()} pid {os.getpid()} since {datetime.now():%H:%M:%S}")
    lock.flush()


def _build(
    model: Path, target: Path, folder: Path, pictures: Sequence[Path], lock: int, patience: float
) -> None:
    """Build a bundle in `folder`, and move it into the cache."""
    onnx = target.with_suffix(".onnx")
    if target == onnx or not _is_complete(onnx):
        onnx = folder / onnx.name
        with _timed("onnx"):
            _export(model, onnx, pictures, lock, patience)
    built = onnx
    if target.suffix == ".xml":
        built = folder / target.name
        with _timed("openvino"):
            _convert(model, onnx, built, pictures)
    # The table is moved last: it marks the bundle as complete.
    for file in (*bundle_files(built), check_path(built)):
        file.replace(target.with_name(file.name))


def _export(model: Path, out: Path, pictures: Sequence[Path], lock: int, patience: float) -> None:
    """Export to ONNX in a child process, which returns its memory to the system at its end.

    The child inherits the lock, since it may outlive this process.
    """
    size = model.stat().st_size
    available, needed = processor.available_memory(), EXPORT_BYTES + 10 * size
    if available is not None and available < needed:
        raise PassingError(
            f"{model}: exporting it takes some {needed / 2**30:.1f} GiB of memory, "
            f"{available / 2**30:.1f} are free"
        )
    free = shutil.disk_usage(out.parent).free
    if free < 10 * size:
        raise PassingError(
            f"{out.parent}: exports take some {10 * size / 2**20:.0f} MiB of disk, "
            f"{free / 2**20:.0f} are free; make room"
        )
    # Absolute paths cannot be taken for options.
    arguments = [os.path.abspath(path) for path in (model, out, *pictures)]
    try:
        ended = run_module(__name__, *arguments, timeout=patience, pass_fds=(lock,))
    except TimeoutError:
        raise PassingError(f"{model}: not exported within {patience:.0f} s") from None
    if ended.code in (REFUSED, TEMPORARY):
        raise (DataError if ended.code == REFUSED else PassingError)(ended.message)
    if ended.code:
        raise PassingError(f"{model}: the process that exported it ended with {ended.how}")


def _convert(model: Path, onnx: Path, out: Path, pictures: Sequence[Path]) -> None:
    """Convert ONNX for OpenVINO and verify it as an export is: this takes a second, where another
    export would take minutes.
    """
    # These import torch, which a remembered choice does without.
    from seenet.export.openvino import read_onnx, write_openvino
    from seenet.export.run import CHECKED, checking_arrays, checking_pictures
    from seenet.export.verify import verify
    from seenet.model.files import load_model
    from seenet.prediction.predictor import Predictor

    write_openvino(out, read_onnx(onnx.read_bytes()), open_bundle(onnx).card)
    saved = load_model(model)
    verification = verify(
        Predictor(saved.model, saved.labels, device="cpu"),
        BundlePredictor(open_tried(out)),
        checking_arrays(saved, checking_pictures(pictures, out)[:CHECKED], own=bool(pictures)),
    )
    verification.check()
    files = {file.name: sha256(file) for file in bundle_files(out)}
    table = json.dumps({"files": files, **verification.result()}, indent=1)
    write_text(check_path(out), table + "\n")


def main() -> None:
    """Run `python -m seenet.export.bundle_cache MODEL OUT PICTURE...`: export to ONNX.

    A failure is printed on stderr in one line.
    """
    from seenet.export.run import run_export

    model, out, *pictures = sys.argv[1:]
    try:
        run_export(model, Path(out), "onnx", images=pictures)
    except Exception as error:  # of exporters, which raise anything
        refuse(
            " ".join(str(error).split()) or type(error).__name__,
            TEMPORARY if is_temporary(error) else REFUSED,
        )


if __name__ == "__main__":
    main()
