"""What an exported model says of itself, and the predictor that runs it. Imports no torch."""

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seenet.core.errors import DataError, UsageError
from seenet.core.labels import LabelSet
from seenet.prediction.base import BasePredictor
from seenet.prediction.formats import BUNDLE_FORMATS
from seenet.prediction.scores import check_finite, to_probabilities
from seenet.prediction.tiles import Span, Tiling

KEY = "seenet"
"""Under which the card stands in a bundle's own metadata."""
FORMAT = 1
FORMATS = {row.suffix: name for name, row in BUNDLE_FORMATS.items()}
"""Format of a bundle by its suffix."""

INPUT = "images: uint8, N x H x W x {channels}, RGB, 0 to 255; normalised inside"
OUTPUTS = ("mask: N x H x W, class of each pixel ({mask})", "scores: float32, N x {classes} x H x W, before softmax")


@dataclass(frozen=True)
class Card:
    """A bundle's metadata: what it answers with, and where it came from."""

    labels: LabelSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of RGB / 255; the bundle normalises on its own."""
    precision: str
    """fp32, fp16 (weights), int8."""
    version: str
    """Of the seenet that exported it."""
    model_sha256: str
    """Of the model file that it was exported from."""

    @property
    def mask_type(self) -> str:
        """Element type of the class map."""
        return "uint8" if self.labels.num_classes <= 256 else "int32"

    def text(self) -> str:
        """JSON, the same for the same card."""
        channels, classes = len(self.mean), self.labels.num_classes
        described = {
            "input": INPUT.format(channels=channels),
            "outputs": [line.format(mask=self.mask_type, classes=classes) for line in OUTPUTS],
        }
        return json.dumps({"format": FORMAT, **asdict(self), **described}, sort_keys=True, ensure_ascii=False)


def parse_card(path: Path, text: str | None) -> Card:
    """The card of the bundle at `path`; DataError where it is missing, damaged, or of a newer version."""
    if not text:
        raise DataError(f"{path}: holds no SeENet metadata (classes, version); expected what seenet export wrote: export it again")
    try:
        values = json.loads(text)
        if values["format"] > FORMAT:
            raise DataError(f"{path}: bundle format {values['format']}, this version reads up to {FORMAT}; install a newer seenet")
        strings = {key: str(values[key]) for key in ("precision", "version", "model_sha256")}
        mean, std = (tuple(float(value) for value in values[key]) for key in ("mean", "std"))
        return Card(labels=LabelSet.from_json(values["labels"]), mean=mean, std=std, **strings)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: its metadata is damaged ({' '.join(str(error).split())[:120]}); export it again") from None


@dataclass(frozen=True)
class Opened:
    """A bundle in its runtime: `run` takes images N x H x W x C uint8, gives scores N x K x H x W float32 and class maps N x H x W."""

    card: Card
    runtime: str
    """Name and version, such as `onnxruntime 1.23.0`."""
    precision: str
    """What it computes in."""
    run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    again: "Callable[[], Opened] | None" = None
    """Opens the file anew: a runtime's session cannot be copied or pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        if self.again is None:
            raise TypeError("this bundle is in no file, from which a copy could be opened")
        return self.again, ()


BYTES = 1600
"""A pixel of a pass, besides the scores: a bundle does not say, so it is what SeENet on a ResNet-101 takes (`memory.pass_bytes`: 1555)."""


class BundlePredictor(BasePredictor):
    """An exported model, ready to segment pictures of any size, one at a time.

    Its scores are those at the picture's own size. UsageError: scales other than 1, which would need another resize than training's.
    """

    device = "cpu"

    def __init__(
        self,
        opened: Opened,
        *,
        scales: Sequence[float] | float = (1.0,),
        flip: bool = False,
        tiling: Tiling | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        card = opened.card
        super().__init__(
            card.labels, channels=len(card.mean), precision=opened.precision, scales=scales, flip=flip, tiling=tiling, info=info
        )
        if self.scales != (1.0,):
            raise UsageError(f"scales {list(self.scales)}: an exported model takes scale 1 alone (and --flip); use the .safetensors model")
        self.card, self.runtime, self.opened, self._process = card, opened.runtime, opened, os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _process=os.getpid())
        if self.opened.card != self.card:
            raise DataError(f"{self.info.get('file', 'the exported model')}: changed since this predictor was copied; load it again")

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return scores N x K x H x W and class maps N x H x W of images N x H x W x C uint8. UsageError in a forked process."""
        if self._process != os.getpid():
            raise UsageError(
                "an exported model that was loaded before a fork: its runtime's threads do not outlive it; load it in the new process, "
                "or start that by spawn"
            )
        return self.opened.run(images)

    @property
    def settings(self) -> dict[str, Any]:
        """As every predictor's, and the runtime."""
        return {**super().settings, "runtime": self.runtime}

    @property
    def machine(self) -> dict[str, Any]:
        """As `BasePredictor.machine`; the runtime is among the settings."""
        return {"device": self.device, "threads": os.cpu_count(), "processor": platform.processor() or platform.machine()}

    def stripes(self, image: np.ndarray, size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
        """As `BasePredictor.stripes`, one of all rows, or of a row of tiles; UsageError for a `size` that is not the picture's."""
        self._check(image)
        if size not in (None, image.shape[:2]):
            found = "x".join(map(str, image.shape[:2]))
            raise UsageError(
                f"an exported model scores pictures at their own size, {found}, not at {'x'.join(map(str, size or ()))}; "
                "use the .safetensors model where labels have another size"
            )
        rows, columns = self._spans((image.shape[0], image.shape[1]))
        return (self._band(image, span, columns) for span in rows)

    def tiles(self, size: tuple[int, int]) -> int:
        """As `BasePredictor.tiles`; a mirrored tile is another one."""
        rows, columns = self._spans(size)
        count = len(rows) * len(columns)
        return count * (1 + self.flip) if count > 1 else 1

    def _spans(self, size: tuple[int, int]) -> tuple[list[Span], list[Span]]:
        """Rows and columns of the tiles of a picture of this height and width."""
        scores = 4 * self.labels.num_classes * (1 + self.flip)
        tiling = self.tiling or Tiling()
        side = tiling.side(size, BYTES + scores, scores) or max(size)
        return tiling.spans(size[0], side, congruent=False), tiling.spans(size[1], side, congruent=False)

    def _band(self, image: np.ndarray, rows: Span, columns: list[Span]) -> np.ndarray:
        """Scores of the rows that a row of tiles answers for, K x r x W."""
        raw = self._row(image, rows, columns)
        if not self.flip:
            return raw
        # In place: a row of tiles is large.
        mean = to_probabilities(raw)
        mean += to_probabilities(self._row(image[:, ::-1], rows, columns))[..., ::-1]
        mean /= 2
        # A probability may be 0 in float32; its log must stay finite, so that cross entropy does.
        np.maximum(mean, np.finfo(np.float32).tiny, out=mean)
        np.log(mean, out=mean)
        return mean

    def _row(self, image: np.ndarray, rows: Span, columns: list[Span]) -> np.ndarray:
        row = None
        for span in columns:
            scores = self._one(image[rows.begin : rows.end, span.begin : span.end])
            part = scores[:, rows.first - rows.begin : rows.last - rows.begin, span.first - span.begin : span.last - span.begin]
            self.tile_done()
            if len(columns) == 1:
                return part
            # Copied, since parts would keep all of their tiles' scores in memory.
            row = np.empty((*part.shape[:2], columns[-1].last), part.dtype) if row is None else row
            row[..., span.first : span.last] = part
        assert row is not None
        return row

    def mask(self, image: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """As `BasePredictor.mask`; without flip the class map that the bundle gives."""
        self._check(image)
        if self.flip or size not in (None, image.shape[:2]) or self.tiles((image.shape[0], image.shape[1])) > 1:
            return super().mask(image, size)
        scores, masks = self.run(np.ascontiguousarray(image[None]))
        # What is not a number goes through a maximum.
        check_finite(scores[0].max(0))
        mask: np.ndarray = masks[0].astype(np.uint8 if self.labels.num_classes <= 256 else np.uint16, copy=False)
        return mask

    def _one(self, image: np.ndarray) -> np.ndarray:
        scores, _ = self.run(np.ascontiguousarray(image[None]))
        one: np.ndarray = scores[0]
        return one
