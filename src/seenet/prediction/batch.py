"""Segment many pictures into a folder: what `seenet predict` does.

While the network runs, one thread reads the next picture and another writes the files of the last
one. Outputs of an earlier run with the same picture, model and settings are skipped (`outputs`).

The way of a picture: `_read` (core/picture_reader.py), `_segment`, the predictor's `row_chunks`
(predictor.py or bundles/bundle.py), `to_mask` (result.py), `Outputs` (outputs.py). Large TIFFs go
through raster.py instead.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from seenet.core.errors import DataError, PartialError, UsageError
from seenet.core.files import remove_leftovers, sha256
from seenet.core.picture_reader import PictureReader
from seenet.core.processor import lacks_memory
from seenet.core.progress import bar
from seenet.prediction.base import BasePredictor
from seenet.prediction.manifest import VersionedBackend, open_manifest
from seenet.prediction.outputs import Outputs, accepted_settings, source_of
from seenet.prediction.pictures import Input, find_inputs
from seenet.prediction.raster import StoredResult, segment
from seenet.prediction.result import Result, output_paths

log = logging.getLogger("seenet")

QUEUED_JOBS = 2
"""Jobs that may wait for the writing thread; more would only hold more pictures in memory."""

Item = TypeVar("Item")
Value = TypeVar("Value")


class Chooser(Protocol):
    """Chooser of a job's predictor, which may change it while the job runs."""

    def accepts(self, backend: VersionedBackend) -> bool:
        """Return whether outputs of this backend, as the manifest has it, count as done."""

    def begin(self, todo: list[Input]) -> list[Input]:
        """Return the pictures to segment, in order."""

    def predictor_for(self, item: Input) -> BasePredictor:
        """Return the predictor of this picture."""

    def done(self, item: Input, seconds: float) -> None:
        """Receive the time that this picture took in the predictor."""


@dataclass
class PredictReport:
    """Counts of the pictures that were written, skipped and failed."""

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
    """Time in the predictor, from pixels to classes."""

    def result(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        choice = {"choice": self.choice} if self.choice else {}
        return {
            "out": str(self.out),
            "model": self.model,
            **self.settings,
            "written": self.written,
            "skipped": self.skipped,
            "failed": [{"input": str(path), "error": message} for path, message in self.failed],
            "seconds": round(self.seconds, 3),
            "network_seconds": round(self.network_seconds, 3),
            **choice,
        }

    def check(self) -> None:
        """Raise an error if a picture failed.

        Raises:
            PartialError: Some pictures failed, and the rest is done; lists the failures.
            DataError: All pictures failed.
        """
        if not self.failed:
            return
        partial_success = self.written or self.skipped
        kind = PartialError if partial_success else DataError
        count = len(self.failed) + self.written + self.skipped
        messages = "; ".join(message for _, message in self.failed)
        if count > 1:
            rest = "the rest is done" if partial_success else "nothing is done"
            messages = f"{len(self.failed)} of {count} pictures failed, {rest}: {messages}"
        raise kind(messages)


def predict_files(
    predictor: BasePredictor,
    inputs: Sequence[str | Path],
    out: Path = Path("predictions"),
    *,
    probabilities: bool = False,
    overwrite: bool = False,
    share: tuple[int, int] = (0, 1),
    chooser: Chooser | None = None,
) -> PredictReport:
    """Write OUT/masks/NAME.png, OUT/overlays/NAME.jpg and, if asked, OUT/probabilities/NAME.npz for
    each of `inputs`.

    A picture that cannot be read is noted in the report, and the rest is done. Files of the same
    picture, model and settings are skipped. After an interruption at any moment a second run
    completes the folder to what one run would have made.

    Args:
        predictor: Predictor of a model file: outputs are known by its hash.
        inputs: Files, folders and patterns.
        out: The folder.
        probabilities: Write them too.
        overwrite: Replace files that were made from something else.
        share: (rank, world): Of several processes with the same arguments each does every world-th
            picture.
        chooser: May replace `predictor` by others that differ in runtime and precision alone.

    Raises:
        DataError: No input, a file in the way (without `overwrite`), or the disk is full.
        UsageError: Two inputs have the same name, or the model is not in a file.
        BusyError: Another process predicts into the folder.
        NotFiniteError: The network returns NaN or infinity.
    """
    started = time.monotonic()
    if "sha256" not in predictor.info:
        raise UsageError(
            "predict_files: found a model that is not in a file, expected one that is, since "
            "outputs are known by its hash; use seenet.load"
        )
    rank, world = share
    reader = predictor.reader
    pictures = find_inputs(inputs, out, reader)[rank::world]
    report = PredictReport(out, predictor.info, predictor.settings)
    with open_manifest(out, share) as manifest:
        remove_leftovers(
            path
            for item in pictures
            for windows in (False, True)
            for path in output_paths(out, item.name, True, windows=windows)
        )
        accepted = accepted_settings(
            predictor, manifest, chooser.accepts if chooser else lambda backend: False
        )
        outputs = Outputs(manifest, accepted, probabilities, overwrite)
        todo = outputs.pending(pictures, source_of(predictor))
        report.skipped = len(pictures) - len(todo)
        todo = chooser.begin(todo) if chooser else todo

        def note_failure(item: Input, error: DataError) -> None:
            log.warning("failed: %s", error)
            report.failed.append((item.path, str(error)))
            advance(note=item.name)

        def write(item: Input, source: dict[str, str], result: Result | StoredResult) -> None:
            try:
                outputs.save(result, item, source)
            except DataError as error:
                # Other errors are those of the folder, and would hit all other pictures too.
                if error.kind != "name":
                    raise
                note_failure(item, error)
            else:
                report.written += 1
                advance(note=item.name)

        with (
            bar("predict", len(pictures), report.skipped) as advance,
            background_writer() as write_later,
        ):
            for item, read in prefetch(todo, partial(_read, reader)):
                predictor = chooser.predictor_for(item) if chooser else predictor
                try:
                    input_hash, image = read.result()
                    before = time.monotonic()
                    result = _segment(predictor, item, image, outputs)
                    seconds = time.monotonic() - before
                except DataError as error:
                    write_later(partial(note_failure, item, error))
                else:
                    source = {**source_of(predictor), "input": input_hash}
                    write_later(partial(write, item, source, result))
                    report.network_seconds += seconds
                    if chooser:
                        chooser.done(item, seconds)
    report.settings = predictor.settings
    report.seconds = time.monotonic() - started
    return report


def _segment(
    predictor: BasePredictor, item: Input, image: np.ndarray | None, outputs: Outputs
) -> Result | StoredResult:
    """Segment a picture; None stands for one that is read by windows."""
    try:
        if image is not None:
            with predictor.tile_bar((image.shape[0], image.shape[1]), item.path.name):
                return predictor.result(image, item.name, probabilities=outputs.probabilities)
        if outputs.probabilities:
            raise DataError(
                f"{item.path}: read by windows, which give no probabilities; "
                "leave --probabilities out"
            )
        return segment(predictor, item.path, outputs.paths(item)[0])
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        size = "its" if image is None else "x".join(map(str, image.shape[:2]))
        raise DataError(
            f"{item.path}: {size} pixels are too many for this machine's memory; use a smaller copy"
        ) from None


def _read(reader: PictureReader, item: Input) -> tuple[str, np.ndarray | None]:
    try:
        if item.windows:
            return sha256(item.path), None
        reader.warn_if_dark(item.path)
        return sha256(item.path), reader(item.path)
    except OSError as error:
        raise DataError(f"{item.path}: cannot be read ({error.strerror or error})") from None


def prefetch(
    items: Iterable[Item], read: Callable[[Item], Value]
) -> Iterator[tuple[Item, Future[Value]]]:
    """Yield each item with a future of `read(item)`, which a thread runs one item ahead."""
    with ThreadPoolExecutor(1, "read") as pool:
        reads: deque[tuple[Item, Future[Value]]] = deque()
        for item in items:
            reads.append((item, pool.submit(read, item)))
            if len(reads) > 1:
                yield reads.popleft()
        yield from reads


@contextmanager
def background_writer() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Yield a function that queues a job for one thread; all jobs are done in order before the
    block ends.

    An exception of a job is raised by a later call, or at the block's end. If the block ends by an
    exception or a signal, the running job is finished and the others are dropped.
    """
    with ThreadPoolExecutor(1, "write") as pool:
        jobs: deque[Future[None]] = deque()

        def write_later(job: Callable[[], None]) -> None:
            jobs.append(pool.submit(job))
            while len(jobs) > QUEUED_JOBS or (jobs and jobs[0].done()):
                jobs.popleft().result()

        try:
            yield write_later
            while jobs:
                jobs.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
