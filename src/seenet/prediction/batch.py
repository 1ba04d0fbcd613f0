"""Segment many pictures into a folder: what `seenet predict` does."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from seenet.core.errors import DataError, PartialError, UsageError
from seenet.core.files import digest, sha256
from seenet.core.images import read_image
from seenet.core.processor import lacks_memory
from seenet.core.progress import bar
from seenet.prediction.base import BasePredictor
from seenet.prediction.behind import behind
from seenet.prediction.inputs import Input, find_inputs
from seenet.prediction.manifest import Manifest, open_manifest, way_of
from seenet.prediction.outputs import remove_leftovers, save, to_do
from seenet.prediction.prefetch import prefetch
from seenet.prediction.raster_mask import StoredResult, segment
from seenet.prediction.result import Result, output_paths

log = logging.getLogger("seenet")

FORMAT = 2
"""Raised when the same settings give other files than before, so that old ones are not taken for new."""


class Chooser(Protocol):
    """Who may have other predictors do some of a job, and lets what they made stay."""

    def accepts(self, way: tuple[str, str]) -> bool:
        """Whether what was made in a way (runtime and precision, as the manifest has them) counts as done."""

    def begin(self, todo: list[Input]) -> list[Input]:
        """The pictures that are to be done, in the order in which they will be."""

    def predictor_for(self, item: Input) -> BasePredictor:
        """Return the predictor of this picture."""

    def done(self, item: Input, seconds: float) -> None:
        """Hear how long this picture took in the predictor."""


@dataclass
class PredictReport:
    """What was done; `check` raises where something failed."""

    out: Path
    model: dict[str, Any]
    settings: dict[str, Any]
    written: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    seconds: float = 0.0
    """All of it, from the search for pictures to the last file."""
    choice: dict[str, Any] | None = None
    """What was computed with and why, where that was left open."""
    network_seconds: float = 0.0
    """Of these, in the predictor: from pixels to classes."""

    def result(self) -> dict[str, Any]:
        """As JSON values."""
        failed = [{"input": str(path), "error": message} for path, message in self.failed]
        return {
            "out": str(self.out), "model": self.model, **self.settings, "written": self.written,
            "skipped": self.skipped, "failed": failed, "seconds": round(self.seconds, 3),
            "network_seconds": round(self.network_seconds, 3), **({"choice": self.choice} if self.choice else {}),
        }  # fmt: skip

    def check(self) -> None:
        """PartialError that lists every failure where the rest is done, DataError where nothing is."""
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
    chooser: Chooser | None = None,
) -> PredictReport:
    """Write OUT/masks/NAME.png, OUT/overlays/NAME.jpg and, if asked, OUT/probabilities/NAME.npz for each of `inputs`.

    A picture that cannot be read is noted in the report and the rest done. What is there from the same picture, model
    and settings is skipped. Interrupted at any moment, a second run completes the folder to what one run had made. `share` is (rank,
    world): of several processes that are given the same arguments each does every world-th picture. `chooser` may replace `predictor`
    by others that differ in runtime and precision alone.

    Raises DataError: no input, a file in the way (without `overwrite`), the disk full; UsageError: two inputs of one
    name; BusyError: another process predicts into OUT; NotFiniteError: the network gives NaN.
    """
    started = time.monotonic()
    if "sha256" not in predictor.info:
        raise UsageError("predict_files: found a model that is in no file, by whose hash outputs are known; use seenet.load")
    rank, world = share
    pictures = find_inputs(inputs, out)[rank::world]
    report = PredictReport(out, predictor.info, predictor.settings)
    with open_manifest(out, share) as manifest:
        remove_leftovers(out, [item.name for item in pictures])
        accepted = _accepted(predictor, manifest, chooser)
        todo = to_do(pictures, manifest, _source(predictor), accepted, probabilities=probabilities, overwrite=overwrite)
        report.skipped = len(pictures) - len(todo)
        todo = chooser.begin(todo) if chooser else todo

        def failed(item: Input, error: DataError) -> None:
            log.warning("failed: %s", error)
            report.failed.append((item.path, str(error)))
            advance(note=item.name)

        def write(item: Input, source: dict[str, str], result: Result | StoredResult) -> None:
            try:
                save(result, item, source, manifest, accepted, probabilities=probabilities, overwrite=overwrite)
            except DataError as error:
                # What is wrong with the folder would be with all the others' files.
                if error.kind != "name":
                    raise
                failed(item, error)
            else:
                report.written += 1
                advance(note=item.name)

        with bar("predict", len(pictures), report.skipped) as advance, behind() as later:
            for item, read in prefetch(todo, _read):
                predictor = chooser.predictor_for(item) if chooser else predictor
                try:
                    input_hash, image = read.result()
                    before = time.monotonic()
                    result = _segment(predictor, item, image, out, probabilities)
                    seconds = time.monotonic() - before
                except DataError as error:
                    later(partial(failed, item, error))
                else:
                    later(partial(write, item, {**_source(predictor), "input": input_hash}, result))
                    report.network_seconds += seconds
                    if chooser:
                        chooser.done(item, seconds)
    report.settings = predictor.settings
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


def _source(predictor: BasePredictor) -> dict[str, str]:
    """Return what outputs are known by, besides their picture."""
    settings = predictor.settings
    way = {"runtime": settings.get("runtime", "eager"), "precision": predictor.precision}
    return {"model": str(predictor.info["sha256"]), "settings": _digest(settings), **way}


def _accepted(predictor: BasePredictor, manifest: Manifest, chooser: Chooser | None) -> set[str]:
    """Settings, by hash, whose outputs count as done: the predictor's own, and the same in another way that `chooser` accepts."""
    own = predictor.settings
    found = {_digest(own)}
    for way in {way_of(entry) for entry in manifest.entries.values()} if chooser else ():
        if chooser and chooser.accepts(way):
            runtime, precision = way
            settings = {**own, "runtime": runtime, "precision": precision}
            if runtime == "eager":
                del settings["runtime"]
            found.add(_digest(settings))
    return found


def _digest(settings: dict[str, Any]) -> str:
    return digest(json.dumps({**settings, "format": FORMAT}, sort_keys=True))
