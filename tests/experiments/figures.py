"""Small real networks and pictures for the figures' tests."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from seenet.data.shapes import SHAPES, ShapesSplit
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction.loading import load
from seenet.prediction.predictor import Predictor


def save_small(path: Path, variant: str = "seenet", seed: int = 0, labels=SHAPES, **options: object) -> Path:
    """A random network whose classes are evened out over a scene, so that its masks have boundaries."""
    torch.manual_seed(seed)
    small = {"backbone": "resnet10t", "num_classes": labels.num_classes, "width": 8, "p_out": 16, **options}
    model = create_model(variant, **small).eval()
    last = [part for part in model.modules() if isinstance(part, nn.Conv2d) and part.out_channels == labels.num_classes][-1]
    with torch.no_grad():
        last.bias -= Predictor(model, labels, device="cpu").scores(scene()[0]).mean((1, 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, model, labels)
    return path


def small(path: Path, variant: str = "seenet", **options: object) -> Predictor:
    return load(save_small(path, variant, **options), "cpu")


def scene(index: int = 0, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    return ShapesSplit("val", 50, size).read(index)


def save_scene(path: Path, index: int = 0, size: int = 64) -> Path:
    Image.fromarray(scene(index, size)[0]).save(path)
    return path
