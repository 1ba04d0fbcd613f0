"""Segment many pictures into a folder: what `seenet predict` does.

While the network works, one thread reads the next picture and another writes the files of the last
one. A picture is skipped where an earlier run made its files with the same model and settings
(`manifest`). Any other existing file is an error.
"""

import errno
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from seenet.core.errors import DataError, PartialError, UsageError
from seenet.core.files import digest, remove_leftovers, replacing, sha256
from seenet.core.images import read_image
from seenet.core.processor import lacks_memory
from seenet.core.progress import bar
from seenet.prediction.base import BasePredictor
from seenet.prediction.manifest import Manifest, open_manifest
from seenet.prediction.pictures import Input, find_inputs
from seenet.prediction.raster import StoredResult, segment
from seenet.prediction.result import Result, output_paths

log = logging.getLogger("seenet")

FORMAT = 2
"""Increase it when the same settings give other files than before, so that old files are not taken
for new.
"""
WAITING = 2
"""Jobs that may wait for the writing thread; more would only hold more pictures in memory."""

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass
class PredictReport:
    """What was written, skipped and failed; `check` raises where something failed."""

    out: Path
    model: dict[str, Any]
    settings: dict[str, Any]
    written: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    seconds: float = 0.0
    """Time from the search for pictures to the last file."""
    choice: dict[str, Any] | None = None
    """Runtime and precision, and why, where they were chosen automatically."""
    network_seconds: float = 0.0
    """Time in the predictor: from pixels to classes."""

    def result(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        failed = [{"input": str(path), "error": message} for path, message in self.failed]
        return {
            "out": str(self.out), "model": self.model, **self.settings, "written": self.written,
            "skipped": self.skipped, "failed": failed, "seconds": round(self.seconds, 3),
            "network_seconds": round(self.network_seconds, 3), **({"choice": self.choice} if self.choice else {}),
        }  # fmt: skip

    def check(self) -> None:
        """Raise PartialError, which lists every failure, where the rest is done, and DataError
        where nothing is.
        """
        if not self.failed:
            return
        kind = PartialError if self.written or self.skipped else DataError
        count = len(self.failed) + self.written + self.skipped
        if count == 1:
            raise kind(self.failed[0][1])
        rest = "the rest is done" if kind is PartialError else "nothing is done"
        raise kind(f"{len(self.failed)} of {count} pictures failed, {rest}: {'; '.join(message for _, message in self.failed)}")


def predict_files(
    predictor: BasePredictor,
    inputs: Sequence[str | Path],
    out: Path = Path("predictions"),
    *,
    probabilities: bool = False,
    overwrite: bool = False,
    share: tuple[int, int] = (0, 1),
) -> PredictReport:
    """Write OUT/masks/NAME.png, OUT/overlays/NAME.jpg and, if asked, OUT/probabilities/NAME.npz for
    each of `inputs`.

    A picture that cannot be read is noted in the report, and the rest is done. Files of the same
    picture, model and settings are skipped. After an interruption at any moment a second run
    completes the folder to what one run would have made.

    Args:
        predictor: from a file, by whose hash outputs are known.
        inputs: files, folders and patterns.
        out: the folder.
        probabilities: write them too.
        overwrite: replace files that were made from something else.
        share: (rank, world): of several processes that are given the same arguments each does every
            world-th picture.

    Raises:
        DataError: no input, a file in the way (without `overwrite`), the disk full.
        UsageError: two inputs of one name.
        BusyError: another process predicts into OUT.
        NotFiniteError: the network gives NaN.
    """
    started = time.monotonic()
    if "sha256" not in predictor.info:
        raise UsageError("predict_files: found a model that is in no file, by whose hash outputs are known; use seenet.load")
    rank, world = share
    pictures = find_inputs(inputs, out)[rank::world]
    report = PredictReport(out, predictor.info, predictor.settings)
    source = {
        "model": str(predictor.info["sha256"]),
        "settings": digest(json.dumps({**predictor.settings, "format": FORMAT}, sort_keys=True)),
    }
    way = {"runtime": predictor.settings.get("runtime", "eager"), "precision": predictor.precision}
    with open_manifest(out, way, share) as manifest:
        for windows in (False, True):
            remove_leftovers(path for item in pictures for path in output_paths(out, item.name, True, windows=windows))
        todo = pending(pictures, manifest, source, probabilities=probabilities, overwrite=overwrite)
        report.skipped = len(pictures) - len(todo)

        def failed(item: Input, error: DataError) -> None:
            log.warning("failed: %s", error)
            report.failed.append((item.path, str(error)))
            advance(note=item.name)

        def write(item: Input, input_hash: str, result: Result | StoredResult) -> None:
            whole = {**source, "input": input_hash}
            try:
                save(result, item, whole, manifest, probabilities=probabilities, overwrite=overwrite)
            except DataError as error:
                # What is wrong with the folder would be with all the others' files.
                if error.kind != "name":
                    raise
                failed(item, error)
            else:
                report.written += 1
                advance(note=item.name)

        with bar("predict", len(pictures), report.skipped) as advance, background_writer() as write_later:
            for item, read in prefetch(todo, _read):
                try:
                    input_hash, image = read.result()
                    before = time.monotonic()
                    result = _segment(predictor, item, image, out, probabilities)
                    report.network_seconds += time.monotonic() - before
                except DataError as error:
                    write_later(partial(failed, item, error))
                else:
                    write_later(partial(write, item, input_hash, result))
    report.seconds = time.monotonic() - started
    return report


def _segment(predictor: BasePredictor, item: Input, image: np.ndarray | None, out: Path, probabilities: bool) -> Result | StoredResult:
    try:
        if image is None:
            if probabilities:
                raise DataError(f"{item.path}: read by windows, of which no probabilities are written; leave --probabilities out")
            return segment(predictor, item.path, output_paths(out, item.name, False, windows=True)[0])
        with predictor.tile_bar((image.shape[0], image.shape[1]), item.path.name):
            return predictor.result(image, item.name, probabilities=probabilities)
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        size = "its" if image is None else "x".join(map(str, image.shape[:2]))
        raise DataError(f"{item.path}: {size} pixels are too many for this machine's memory; use a smaller copy") from None


def _read(item: Input) -> tuple[str, np.ndarray | None]:
    try:
        return sha256(item.path), None if item.windows else read_image(item.path)
    except OSError as error:
        raise DataError(f"{item.path}: cannot be read ({error.strerror or error})") from None


def pending(inputs: list[Input], manifest: Manifest, source: dict[str, str], *, probabilities: bool, overwrite: bool) -> list[Input]:
    """Return the inputs whose outputs are not all there already, made from the same picture and
    `source` (model, settings).

    Raises:
        DataError: another file stands where an output would, without `overwrite`. Nothing is
            written yet.
    """
    missing, foreign = [], []
    for item in inputs:
        paths = output_paths(manifest.out, item.name, probabilities, windows=item.windows)
        there = [path for path in paths if os.path.lexists(path)]
        try:
            whole = {**source, "input": sha256(item.path)} if there else source
        except OSError:
            # It cannot be read: that is told, with the others that fail, when its turn comes.
            missing.append(item)
            continue
        strange = [path for path in there if not path.is_file() or not manifest.made(item.name, whole, path)]
        foreign += strange
        if strange or len(there) < len(paths):
            missing.append(item)
    if foreign and not overwrite:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        raise DataError(
            f"{foreign[0]}{more}: exists already and was not made from the same picture, model and settings; "
            "use --overwrite or another --out"
        )
    return missing


def save(
    result: Result | StoredResult, item: Input, source: dict[str, str], manifest: Manifest, *, probabilities: bool, overwrite: bool
) -> None:
    """Write a result's files under temporary names, record them, then rename them.

    Raises:
        DataError: one of them cannot be written; of kind `name` where only this picture is at
            fault.
    """
    name = item.name
    paths = output_paths(manifest.out, name, probabilities, windows=item.windows)
    # Looked at before the run too; this is for what came since.
    strange = [path for path in paths if os.path.lexists(path) and not overwrite and not manifest.made(name, source, path)]
    if strange:
        raise DataError(f"{strange[0]}: came to be while predicting; use --overwrite or another --out")
    try:
        with ExitStack() as stack:
            hashes = {}
            for path in paths:
                temporary = stack.enter_context(replacing(path))
                result.write(path.parent.relative_to(manifest.out).parts[0], temporary)
                hashes[path.relative_to(manifest.out).as_posix()] = sha256(temporary)
            manifest.record(name, source, hashes)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DataError(f"{item.path}: its outputs' names are too long here", fix="give it a shorter one", kind="name") from None
        reason = error.strerror or error
        raise DataError(f"{manifest.out}: cannot write {name} ({reason}); make room or choose another --out") from None


def prefetch(items: Iterable[Item], read: Callable[[Item], Value]) -> Iterator[tuple[Item, Future[Value]]]:
    """Yield each item with a future of `read(item)`, which a thread runs one item ahead."""
    with ThreadPoolExecutor(1, "read") as pool:
        previous: tuple[Item, Future[Value]] | None = None
        try:
            for item in items:
                following = (item, pool.submit(read, item))
                if previous is not None:
                    yield previous
                previous = following
            if previous is not None:
                yield previous
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def background_writer() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Yield a function that queues a job for one thread; all jobs are done, in order, before the
    block ends.

    What a job raises comes out of a later call, or of the block's end. When the block is left by an
    error or a signal, the running job is finished and the others are dropped.
    """
    with ThreadPoolExecutor(1, "write") as pool:
        jobs: deque[Future[None]] = deque()

        def write_later(job: Callable[[], None]) -> None:
            jobs.append(pool.submit(job))
            while len(jobs) > WAITING or (jobs and jobs[0].done()):
                jobs.popleft().result()

        try:
            yield write_later
            while jobs:
                jobs.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
