"""An exported model (a bundle): its metadata, and the predictor that runs it, without torch."""

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
from seenet.core.picture_reader import PLAIN, PictureReader
from seenet.prediction.base import BasePredictor, tile_done
from seenet.prediction.bundles.formats import BUNDLE_FORMATS
from seenet.prediction.result import check_finite, to_probabilities
from seenet.prediction.tiles import Span, Tiling

KEY = "seenet"
"""Key of the card in a bundle's own metadata."""
FORMAT = 2
"""Version of the card: 2 where pictures are read by channels or a range of values, which earlier
versions would leave out, else 1.
"""
FORMATS = {row.suffix: name for name, row in BUNDLE_FORMATS.items() if row.read}
"""Formats that are read here, by suffix."""

INPUT = "images: uint8, N x H x W x {channels}, {names}, 0 to 255; normalised inside"
OUTPUTS = (
    "mask: N x H x W, class of each pixel ({mask})",
    "scores: float32, N x {classes} x H x W, before softmax",
)


def is_bundle(path: Path) -> bool:
    """Return whether a model file is an exported one.

    Raises:
        UsageError: A `.pt2` file, which is written for other programs: torch's reader may run code
            that such a file holds.
    """
    if path.suffix == ".pt2":
        raise UsageError(
            f"{path}: a .pt2 file is for torch.export.load and is not read here, since reading it "
            "may run code; give the .safetensors that it came from, or export that with --format "
            "onnx or openvino"
        )
    return path.suffix in FORMATS


@dataclass(frozen=True)
class Card:
    """Metadata of a bundle: its classes, and where it came from."""

    labels: LabelSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Mean and standard deviation of each channel / 255; the bundle normalises on its own."""
    precision: str
    """fp32, fp16 (weights), int8."""
    version: str
    """Version of the seenet that exported it."""
    model_sha256: str
    """SHA-256 of the model file that it was exported from."""
    reader: PictureReader = PLAIN
    """How files become pictures."""

    @property
    def mask_type(self) -> str:
        """Return the element type of the class map."""
        return "uint8" if self.labels.num_classes <= 256 else "int32"

    def text(self) -> str:
        """Return the card as JSON, always the same for the same card."""
        channels, classes = len(self.mean), self.labels.num_classes
        values = {name: value for name, value in asdict(self).items() if name != "reader"}
        bands, reader = self.reader.channels, self.reader.as_json()
        names = f"bands {', '.join(map(str, bands))}" if bands else "RGB"
        described = {
            "format": FORMAT if reader else 1,
            **({"reader": reader} if reader else {}),
            "input": INPUT.format(channels=channels, names=names),
            "outputs": [line.format(mask=self.mask_type, classes=classes) for line in OUTPUTS],
        }
        return json.dumps({**values, **described}, sort_keys=True, ensure_ascii=False)


def parse_card(path: Path, text: str | None) -> Card:
    """Parse the card of the bundle at `path`.

    Raises:
        DataError: The card is missing, damaged, or of a newer version.
    """
    if not text:
        raise DataError(
            f"{path}: holds no SeENet metadata (classes, version); expected what seenet export "
            "wrote: export it again"
        )
    try:
        values = json.loads(text)
        if values["format"] > FORMAT:
            raise DataError(
                f"{path}: bundle format {values['format']}, this version reads up to {FORMAT}; "
                "install a newer seenet"
            )
        strings = {key: str(values[key]) for key in ("precision", "version", "model_sha256")}
        mean, std = (tuple(float(value) for value in values[key]) for key in ("mean", "std"))
        reader = PictureReader.from_json(values.get("reader"))
        labels = LabelSet.from_json(values["labels"])
        return Card(labels=labels, mean=mean, std=std, reader=reader, **strings)
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: its metadata is damaged ({reason}); export it again") from None


@dataclass(frozen=True)
class Opened:
    """A bundle that is loaded in its runtime.

    `run` maps images N x H x W x C uint8 to scores N x K x H x W float32 and class maps N x H x W.
    """

    card: Card
    runtime: str
    """Name and version, such as `onnxruntime 1.23.0`."""
    precision: str
    """Number format that it computes in."""
    run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    reopen: "Callable[[], Opened] | None" = None
    """Function that opens the file again: a runtime's session cannot be copied or pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        if self.reopen is None:
            raise TypeError("this bundle is not in a file, from which a copy could be opened")
        return self.reopen, ()


BYTES_PER_PIXEL = 1600
"""Memory of a pass, besides the scores. A bundle does not say, so this is that of SeENet on a
ResNet-101 (`tiled.pass_bytes`: 1555).
"""


class BundlePredictor(BasePredictor):
    """Predictor that runs an exported model; its scores have the picture's own size.

    Raises:
        UsageError: Scales other than 1, which would need another resize than in training.
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
        self.opened, self.card, self.runtime = opened, opened.card, opened.runtime
        self._process = os.getpid()
        super().__init__(
            self.card.labels,
            channels=len(self.card.mean),
            reader=self.card.reader,
            precision=opened.precision,
            scales=scales,
            flip=flip,
            tiling=tiling,
            info=info,
        )
        if self.scales != (1.0,):
            raise UsageError(
                f"scales {list(self.scales)}: an exported model takes scale 1 alone (and --flip); "
                "use the .safetensors model"
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _process=os.getpid())
        if self.opened.card != self.card:
            raise DataError(
                f"{self.info.get('file', 'the exported model')}: changed since this predictor was "
                "copied; load it again"
            )

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and class maps of a batch.

        Args:
            images: N x H x W x C uint8.

        Returns:
            N x K x H x W and N x H x W.

        Raises:
            UsageError: In a forked process.
        """
        if self._process != os.getpid():
            raise UsageError(
                "an exported model that was loaded before a fork: its runtime's threads do not "
                "survive a fork; load it in the new process, or start that by spawn"
            )
        return self.opened.run(images)

    @property
    def settings(self) -> dict[str, Any]:
        """Return every predictor's settings, and the runtime."""
        return {**super().settings, "runtime": self.runtime}

    @property
    def machine(self) -> dict[str, Any]:
        """Return device, threads and processor; the runtime is among the settings."""
        return {
            "device": self.device,
            "threads": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
        }

    def row_chunks(
        self, image: np.ndarray, size: tuple[int, int] | None = None
    ) -> Iterator[np.ndarray]:
        """Compute `BasePredictor.row_chunks`: one of all rows, or one for each row of tiles.

        Raises:
            UsageError: `size` is not the picture's size.
        """
        self._check(image)
        if size not in (None, image.shape[:2]):
            found, asked = ("x".join(map(str, sides)) for sides in (image.shape[:2], size or ()))
            raise UsageError(
                f"an exported model scores pictures at their own size, {found}, not at {asked}; "
                "use the .safetensors model where labels have another size"
            )
        rows, columns = self._spans((image.shape[0], image.shape[1]))
        return (self._band(image, span, columns) for span in rows)

    def tiles(self, size: tuple[int, int]) -> int:
        """Count tiles as `BasePredictor.tiles`; a mirrored tile is another one."""
        rows, columns = self._spans(size)
        count = len(rows) * len(columns)
        return count * (1 + self.flip) if count > 1 else 1

    def _spans(self, size: tuple[int, int]) -> tuple[list[Span], list[Span]]:
        """Return the rows and columns of the tiles of a picture of this height and width."""
        scores = 4 * self.labels.num_classes * (1 + self.flip)
        side = self.tiling.side(size, BYTES_PER_PIXEL + scores, scores) or max(size)
        rows, columns = (self.tiling.spans(length, side, congruent=False) for length in size)
        return rows, columns

    def _band(self, image: np.ndarray, rows: Span, columns: list[Span]) -> np.ndarray:
        """Compute the scores of one row of tiles without its margins, K x r x W."""
        raw = self._raw_band(image, rows, columns)
        if not self.flip:
            return raw
        # In place: a row of tiles is large.
        mean = to_probabilities(raw)
        mean += to_probabilities(self._raw_band(image[:, ::-1], rows, columns))[..., ::-1]
        mean /= 2
        # A probability may be 0 in float32; its log must be finite for the cross entropy.
        np.maximum(mean, np.finfo(np.float32).tiny, out=mean)
        np.log(mean, out=mean)
        return mean

    def _raw_band(self, image: np.ndarray, rows: Span, columns: list[Span]) -> np.ndarray:
        band = None
        for span in columns:
            tile = image[rows.begin : rows.end, span.begin : span.end]
            scores: np.ndarray = self.run(np.ascontiguousarray(tile[None]))[0][0]
            part = scores[
                :,
                rows.first - rows.begin : rows.last - rows.begin,
                span.first - span.begin : span.last - span.begin,
            ]
            tile_done.get()()
            if len(columns) == 1:
                return part
            # Copied, since parts would keep the scores of their whole tiles in memory.
            if band is None:
                band = np.empty((*part.shape[:2], columns[-1].last), part.dtype)
            band[..., span.first : span.last] = part
        assert band is not None
        return band

    def mask(self, image: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return the class of each pixel, as `BasePredictor.mask`.

        Without flip and tiles it is the class map of the bundle.
        """
        self._check(image)
        if (
            self.flip
            or size not in (None, image.shape[:2])
            or self.tiles((image.shape[0], image.shape[1])) > 1
        ):
            return super().mask(image, size)
        scores, masks = self.run(np.ascontiguousarray(image[None]))
        # The maximum of numbers with a NaN among them is NaN.
        check_finite(scores[0].max(0))
        return np.asarray(masks[0], np.uint8 if self.labels.num_classes <= 256 else np.uint16)
