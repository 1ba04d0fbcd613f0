"""A predictor from a model's name and the options of prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seenet.core.errors import UsageError
from seenet.core.files import find_model, sha256
from seenet.prediction.base import BasePredictor
from seenet.prediction.bundles.bundle import BundlePredictor, is_bundle
from seenet.prediction.bundles.trial import open_tried
from seenet.prediction.tiles import MARGIN, MEMORY, TileSize, Tiling

if TYPE_CHECKING:
    from seenet.prediction.predictor import Predictor


@dataclass(frozen=True)
class PredictOptions:
    """Options of prediction.

    Args:
        device: auto, cpu, cuda (cuda:1), mps.
        precision: fp32, bf16.
        scales: Factors on a picture's sides; the probabilities of all scales are averaged.
        flip: Average with the mirrored picture too.
        tile, margin, memory: How to cut large pictures, as `Tiling`.
        factory: Name of the callable of a network of `model.factory`, given again, since no file
            may choose what code runs.
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
        """Return how to cut large pictures; raise UsageError for values out of range."""
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
    """Load a model from a run folder, a .safetensors file, an exported bundle or a bundled name.

    Args:
        name: The model; bundles of ONNX and OpenVINO (.onnx, .xml) are loaded without torch.
        device, precision, scales, flip, tile, margin, memory, factory: As `PredictOptions`.

    Raises:
        DataError: There is no such model, or the file is damaged.
        UsageError: An option is out of range, or the file is for other programs (.pt2).
    """
    return open_predictor(
        name, PredictOptions(device, precision, scales, flip, tile, margin, memory, factory)
    )


def open_predictor(name: str | Path, options: PredictOptions) -> BasePredictor:
    """Load a model with `options`, as `load`."""
    path, tiling = find_model(name), options.tiling
    if not is_bundle(path):
        return _open_trained(path, options)
    if options.factory:
        raise UsageError(
            f"{path}: an exported model holds its network; leave --factory {options.factory} out"
        )
    opened = open_tried(path, device=options.device, precision=options.precision)
    info = {"file": str(path), "sha256": sha256(path)}
    return BundlePredictor(
        opened, scales=options.scales, flip=options.flip, tiling=tiling, info=info
    )


def load_trained(name: str | Path, device: str = "auto") -> "Predictor":
    """Load a model whose network can be inspected (`Predictor.model`).

    Raises:
        DataError: As `load`.
        UsageError: An exported model, which has no network to inspect.
    """
    path = find_model(name)
    if is_bundle(path):
        raise UsageError(
            f"{path}: an exported model shows nothing but its scores; use the .safetensors that it "
            "came from"
        )
    return _open_trained(path, PredictOptions(device))


def _open_trained(path: Path, options: PredictOptions) -> "Predictor":
    from seenet.model.files import load_model
    from seenet.prediction.predictor import Predictor

    saved = load_model(path, factory=options.factory)
    return Predictor(
        # Built in torch's default type, which the user may have changed; pictures are float32.
        saved.model.float(),
        saved.labels,
        device=options.device,
        precision=options.precision,
        scales=options.scales,
        flip=options.flip,
        tiling=options.tiling,
        info={"file": str(saved.path), "sha256": saved.sha256},
    )
