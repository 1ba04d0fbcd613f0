"""A predictor from a model's name, with the options that say how it predicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seenet.core.errors import UsageError
from seenet.core.files import sha256
from seenet.core.find import find_model
from seenet.prediction.base import BasePredictor
from seenet.prediction.bundles.bundle import BundlePredictor, is_bundle
from seenet.prediction.bundles.trial import open_tried
from seenet.prediction.tiles import MARGIN, MEMORY, TileSize, Tiling

if TYPE_CHECKING:
    from seenet.prediction.predictor import Predictor


@dataclass(frozen=True)
class PredictOptions:
    """How a model predicts.

    Args:
        device: auto, cpu, cuda (cuda:1), mps.
        precision: fp32, bf16.
        scales: factors on a picture's sides; the probabilities of all are averaged.
        flip: average with the mirrored picture too.
        tile, margin, memory: how large pictures are cut, as `Tiling`.
        factory: for a network of `model.factory`, its name again, since no file may choose what
            code runs.
    """

    device: str = "auto"
    precision: str = "fp32"
    scales: Sequence[float] | float = (1.0,)
    flip: bool = False
    tile: TileSize = "whole"
    margin: int = MARGIN
    memory: float = MEMORY
    factory: str | None = None

    @property
    def tiling(self) -> Tiling:
        """Return how pictures are cut. UsageError for numbers that make no sense."""
        return Tiling(self.tile, self.margin, self.memory)


def load(
    name: str | Path,
    device: str = "auto",
    precision: str = "fp32",
    *,
    scales: Sequence[float] | float = (1.0,),
    flip: bool = False,
    tile: TileSize = "whole",
    margin: int = MARGIN,
    memory: float = MEMORY,
    factory: str | None = None,
) -> BasePredictor:
    """Read a model by run folder, .safetensors file, exported bundle or bundled name.

    Args:
        name: the model; bundles of ONNX and OpenVINO (.onnx, .xml) are read without torch.
        device, precision, scales, flip, tile, margin, memory, factory: as `PredictOptions`.

    Raises:
        DataError: no such model, or a damaged file.
        UsageError: options that make no sense, or a file for other programs (.pt2).
    """
    return open_predictor(name, PredictOptions(device, precision, scales, flip, tile, margin, memory, factory))


def open_predictor(name: str | Path, options: PredictOptions) -> BasePredictor:
    """Read a model with `options`, as `load`."""
    path, tiling = find_model(name), options.tiling
    if not is_bundle(path):
        return _open_trained(path, options)
    if options.factory:
        raise UsageError(f"{path}: an exported model holds its network; leave --factory {options.factory} out")
    opened = open_tried(path, device=options.device, precision=options.precision)
    info = {"file": str(path), "sha256": sha256(path)}
    return BundlePredictor(opened, scales=options.scales, flip=options.flip, tiling=tiling, info=info)


def load_trained(name: str | Path, device: str = "auto") -> "Predictor":
    """Read a model whose network can be looked into (`Predictor.model`).

    Raises:
        DataError: as `load`.
        UsageError: an exported model, which shows nothing but its scores.
    """
    path = find_model(name)
    if is_bundle(path):
        raise UsageError(f"{path}: an exported model shows nothing but its scores; use the .safetensors that it came from")
    return _open_trained(path, PredictOptions(device))


def _open_trained(path: Path, options: PredictOptions) -> "Predictor":
    from seenet.model.files import load_model
    from seenet.prediction.predictor import Predictor

    saved = load_model(path, factory=options.factory)
    # It was made in torch's default type, which the user may have set; pictures are float32.
    return Predictor(
        saved.model.float(), saved.labels, device=options.device, precision=options.precision, scales=options.scales,
        flip=options.flip, tiling=options.tiling, info={"file": str(saved.path), "sha256": saved.sha256},
    )  # fmt: skip
