"""A user's model as a bundle in the cache, exported when it is first wanted."""

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
from importlib import metadata
from pathlib import Path
from typing import TextIO

import seenet
from seenet.core import processor
from seenet.core.child import REFUSED, refuse, run_module
from seenet.core.errors import BusyError, DataError, PassingError
from seenet.core.files import cache_folder, digest, sha256, write_text
from seenet.core.locks import locked
from seenet.prediction.formats import BUNDLE_FORMATS, bundle_files, check_path

log = logging.getLogger("seenet")

SECONDS = {"onnx": 60.0, "openvino": 10.0}
"""What making one is taken to last where this machine has made none: of the bundled model on two idle cores 50 s, and a few more."""
EXPORT_SECONDS = 900
"""Longest that it may last where it was asked for."""
WAIT_SECONDS = 1200
"""For one other process's: an export, and its conversion and verification."""
EXPORT_BYTES = 2 * 2**30
"""Memory that an export takes besides some ten times the model's file: 1.6 GB in all for the bundled model."""
KINDS = ("onnx", "openvino")
"""Formats that it holds."""
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino")
"""Whose versions a bundle depends on."""
TEMPORARY = 75
"""Exit code of an export that failed for a reason of the moment."""


def bundle(model: Path, kind: str, pictures: Callable[[], Sequence[Path]], *, patience: float | None = None) -> Path:
    """Return the bundle of a model file, fp32, verified on `pictures`; build it where the cache has none.

    Args:
        kind: onnx or openvino.
        patience: seconds that an export, or waiting for another process's, may last.

    Raises:
        DataError: it cannot be exported or does not answer as the model.
        PassingError: this takes too much time, memory or disk just now, or the cache cannot be written.
        BusyError: another process has been exporting into the cache for too long.
    """
    target = _target(model, kind)
    if _is_complete(target):
        return target
    try:
        with _locked_folder(target.parent, WAIT_SECONDS if patience is None else patience) as (temporary, lock):
            if not _is_complete(target):
                _build(model, target, temporary, pictures(), lock, EXPORT_SECONDS if patience is None else patience)
    except OSError as error:
        raise PassingError(
            f"{target.parent}: cannot be written ({error.strerror or error}); set XDG_CACHE_HOME to a folder that can"
        ) from None
    return target


def remove(model: Path, kind: str) -> None:
    """Take a bundle out of the cache, if it is there."""
    path = _target(model, kind)
    with suppress(OSError):
        for part in (check_path(path), *bundle_files(path)):
            part.unlink(missing_ok=True)


def present(model: Path, kind: str) -> bool:
    """Return whether `bundle` would find it."""
    return _is_complete(_target(model, kind))


def forecast(model: Path, kinds: Collection[str]) -> float:
    """Return the seconds that making what is missing of `kinds` will take: as long as the last ones on this machine."""
    missing = {kind for kind in kinds if not present(model, kind)}
    if "openvino" in missing and not present(model, "onnx"):
        missing.add("onnx")
    known = _known_seconds()
    return sum(known.get(kind, SECONDS[kind]) for kind in missing)


def versions() -> dict[str, str]:
    """Return the versions of the libraries that bundles and speeds depend on."""
    found = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def is_temporary(error: BaseException) -> bool:
    """Return whether a failure is one of the moment, so that trying again may help."""
    cause = error.__cause__
    return (
        isinstance(error, PassingError | BusyError | OSError)
        or processor.lacks_memory(error)
        or (cause is not None and is_temporary(cause))
    )


def _target(model: Path, kind: str) -> Path:
    parts = json.dumps([sha256(model), seenet.__version__, versions()], sort_keys=True)
    return cache_folder() / "bundles" / f"{digest(parts)}{BUNDLE_FORMATS[kind].suffix}"


def _is_complete(path: Path) -> bool:
    try:
        files = json.loads(check_path(path).read_text(encoding="utf-8"))["files"]
        return path.name in files and all(sha256(path.with_name(name)) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _seconds_file() -> Path:
    machine = f"{processor.name()} {processor.threads()}"
    return cache_folder() / "seconds" / f"{digest(machine)}.json"


def _known_seconds() -> dict[str, float]:
    """Read how long the last export and conversion took here, by kind."""
    try:
        return {kind: float(seconds) for kind, seconds in json.loads(_seconds_file().read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


@contextmanager
def _timed(kind: str) -> Iterator[None]:
    """Remember how long the block takes; where it fails, only if that is longer than was known."""
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
def _locked_folder(folder: Path, patience: float) -> Iterator[tuple[Path, int]]:
    """Make an empty folder to build in, for one process at a time; yield it and the lock's file number."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "building"
    with (folder / "lock").open("a+", encoding="utf-8") as lock, ExitStack() as holding:
        _wait_for_lock(lock, holding, patience)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary, lock.fileno()
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _wait_for_lock(lock: TextIO, holding: ExitStack, patience: float) -> None:
    """Wait for the lock, for each holder up to `patience` seconds, and say for whom."""
    began, announced = time.monotonic(), ""
    while True:
        try:
            holding.enter_context(locked(lock.fileno(), busy="held"))
            break
        except BusyError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
        if holder != announced:
            log.info("waiting for %s, which makes an export", holder)
            began, announced = time.monotonic(), holder
        if time.monotonic() - began > patience:
            raise BusyError(
                f"{lock.name}: held by {holder} for over {patience:.3g} s; end that one, or do without an export with --runtime eager"
            )
        time.sleep(0.2)
    lock.truncate(0)
    lock.write(f"host {socket.gethostname()} pid {os.getpid()} since {datetime.now():%H:%M:%S}")
    lock.flush()


def _build(model: Path, target: Path, temporary: Path, pictures: Sequence[Path], lock: int, patience: float) -> None:
    onnx = target.with_suffix(".onnx")
    if target == onnx or not _is_complete(onnx):
        onnx = temporary / onnx.name
        with _timed("onnx"):
            _export(model, onnx, pictures, lock, patience)
    built = onnx
    if target.suffix == ".xml":
        built = temporary / target.name
        with _timed("openvino"):
            _convert(model, onnx, built, pictures)
    # The table last: it says that all is there.
    for part in (*bundle_files(built), check_path(built)):
        part.replace(target.with_name(part.name))


def _export(model: Path, out: Path, pictures: Sequence[Path], lock: int, patience: float) -> None:
    """Export to ONNX in a process of its own, which gives its memory back and holds the lock: it may outlive this one."""
    size = model.stat().st_size
    available, needed = processor.available_memory(), EXPORT_BYTES + 10 * size
    if available is not None and available < needed:
        raise PassingError(f"{model}: exporting it takes some {needed / 2**30:.1f} GiB of memory, {available / 2**30:.1f} are free")
    free = shutil.disk_usage(out.parent).free
    if free < 10 * size:
        raise PassingError(f"{out.parent}: exports take some {10 * size / 2**20:.0f} MiB of disk, {free / 2**20:.0f} are free; make room")
    arguments = [os.path.abspath(path) for path in (model, out, *pictures)]
    try:
        ended = run_module(__name__, *arguments, timeout=patience, pass_fds=(lock,))
    except TimeoutError:
        raise PassingError(f"{model}: not exported within {patience:.0f} s") from None
    if ended.code == REFUSED:
        raise DataError(ended.message)
    if ended.code == TEMPORARY:
        raise PassingError(ended.message)
    if ended.code:
        raise PassingError(f"{model}: the process that exported it ended with {ended.how}")


def _convert(model: Path, onnx: Path, out: Path, pictures: Sequence[Path]) -> None:
    """Convert ONNX for OpenVINO, in a second where another export takes minutes, and verify it as an export is."""
    from seenet.core.images import read_image
    from seenet.export.openvino import read_onnx, write_openvino
    from seenet.export.run import checking_pictures, fitted
    from seenet.export.verify import verify
    from seenet.model.files import load_model
    from seenet.prediction.bundle import BundlePredictor
    from seenet.prediction.predictor import Predictor
    from seenet.prediction.runtimes import open_bundle
    from seenet.prediction.trial import open_tried

    card = open_bundle(onnx).card
    write_openvino(out, read_onnx(onnx.read_bytes()), card)
    saved = load_model(model)
    verification = verify(
        Predictor(saved.model, saved.labels, device="cpu"),
        BundlePredictor(open_tried(out)),
        [fitted(read_image(path), saved) for path in pictures or checking_pictures((), out)],
    )
    verification.check()
    files = {part.name: sha256(part) for part in bundle_files(out)}
    write_text(check_path(out), json.dumps({"files": files, **verification.result()}, indent=1) + "\n")


def main() -> None:
    """Run `python -m seenet.export.bundle_cache MODEL OUT PICTURE...`: export to ONNX, or say why not on stderr."""
    from seenet.export.run import run_export

    model, out, *pictures = sys.argv[1:]
    try:
        run_export(model, Path(out), "onnx", images=pictures)
    except Exception as error:  # of exporters, which raise what they like
        refuse(" ".join(str(error).split()) or type(error).__name__, TEMPORARY if is_temporary(error) else REFUSED)


if __name__ == "__main__":
    main()
