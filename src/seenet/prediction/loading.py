"""A predictor from a model's name."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seenet.core.errors import UsageError
from seenet.core.files import find_model, sha256
from seenet.prediction.base import BasePredictor
from seenet.prediction.bundle import FORMATS, BundlePredictor
from seenet.prediction.tiles import MARGIN, MEMORY, TileSize, Tiling
from seenet.prediction.trial import open_tried

if TYPE_CHECKING:
    from seenet.prediction.predictor import Predictor


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
    """Read a model by run folder, .safetensors file, exported bundle or bundled name, ready to predict.

    Bundles of ONNX and OpenVINO (.onnx, .xml) are read without torch. `tile`, `margin`, `memory`: how large pictures are cut, as `Tiling`.
    `factory`: for a network of `model.factory`, its name again, since no file may choose what code runs.
    Raises DataError: no such model, or a damaged file; UsageError: settings that make no sense.
    """
    path, tiling = find_model(name), Tiling(tile, margin, memory)
    if path.suffix in FORMATS:
        if factory:
            raise UsageError(f"{path}: an exported model holds its network; leave --factory {factory} out")
        opened = open_tried(path, device=device, precision=precision)
        return BundlePredictor(opened, scales=scales, flip=flip, tiling=tiling, info={"file": str(path), "sha256": sha256(path)})
    return load_trained(path, device, precision, scales=scales, flip=flip, tile=tile, margin=margin, memory=memory, factory=factory)


def load_trained(
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
) -> "Predictor":
    """As `load`, for what looks into the network itself (`Predictor.model`): UsageError for a bundle, which shows its scores alone."""
    from seenet.model.files import load_model
    from seenet.prediction.predictor import Predictor

    path, tiling = find_model(name), Tiling(tile, margin, memory)
    if path.suffix in FORMATS:
        raise UsageError(f"{path}: an exported model shows nothing but its scores; use the .safetensors that it came from")
    saved = load_model(path, factory=factory)
    info = {"file": str(saved.path), "sha256": saved.sha256}
    # It was made in torch's default type, which the user may have set; pictures are float32.
    return Predictor(
        saved.model.float(), saved.labels, device=device, precision=precision, scales=scales, flip=flip, tiling=tiling, info=info
    )
