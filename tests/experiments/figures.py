"""Small networks and pictures for the tests of figures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seenet.core.labels import LabelSet
from seenet.data.shapes import SHAPES, ShapesSplit
from seenet.experiments.drawing import Panel, Row
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction.loading import load
from seenet.prediction.predictor import Predictor


def save_small(
    path: Path,
    variant: str = "seenet",
    seed: int = 0,
    labels: LabelSet = SHAPES,
    **options: object,
) -> Path:
    """Save a random network whose classes are evened out, so that its masks have boundaries."""
    torch.manual_seed(seed)
    small = {"backbone": "resnet10t", "width": 8, "p_out": 16, **options}
    model = create_model(variant, num_classes=labels.num_classes, **small).eval()  # type: ignore[arg-type]
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    last = [conv for conv in convolutions if conv.out_channels == labels.num_classes][-1]
    with torch.no_grad():
        last.bias -= Predictor(model, labels, device="cpu").scores(scene()[0]).mean((1, 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, model, labels)
    return path


def small(path: Path, variant: str = "seenet", **options: object) -> Predictor:
    return load(save_small(path, variant, **options), "cpu")  # type: ignore[arg-type,return-value]


def scene(index: int = 0, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    return ShapesSplit("val", 50, size).read(index)


def save_scene(path: Path, index: int = 0, size: int = 64) -> Path:
    Image.fromarray(scene(index, size)[0]).save(path)
    return path


class Drawn:
    """Double of `panel_grid` that keeps what the last figure is made of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
        self.sides: list[str] = []
        self.rows: list[list[Panel | None]] = []
        self.caption = ""
        self.legend: list[str] = []
        monkeypatch.setattr(module, "panel_grid", self.draw)

    def draw(self, rows: list[Row], caption: str, legend: list) -> bytes:
        self.sides, self.rows = map(list, zip(*rows, strict=True))
        self.caption = caption
        self.legend = [key.get_label() for key in legend]
        return b"figure"

    def titles(self) -> list[list[str]]:
        return [[panel.title if panel else "" for panel in row] for row in self.rows]
