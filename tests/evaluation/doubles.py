"""Test doubles: a split in memory, and predictors that need no trained network."""

import hashlib
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from seenet.core.labels import LabelSet, voc_colours
from seenet.core.picture_reader import PLAIN
from seenet.evaluation.outcome import Evaluation, tables
from seenet.prediction.predictor import Predictor
from tests.prediction.doubles import TinyNet

LABELS = LabelSet("toy", ("sky", "road", "tree"), voc_colours(3), rim=True)


class MemorySplit:
    """A split of arrays."""

    def __init__(
        self, pairs: list[tuple[np.ndarray, np.ndarray]], labels: LabelSet = LABELS
    ) -> None:
        self.name, self.labels, self.pairs = "toy/val", labels, pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def key(self, index: int) -> str:
        return f"drive/{index:03d}"

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[index]

    def image(self, index: int) -> np.ndarray:
        return self.pairs[index][0]

    def paths(self, index: int) -> tuple[None, None]:
        return None, None

    def stamp(self, index: int) -> str:
        image, mask = self.pairs[index]
        return hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()


def random_split(
    count: int, *, seed: int = 0, labels: LabelSet = LABELS, size: tuple[int, int] = (13, 17)
) -> MemorySplit:
    """Return noise images of different sizes, with labels of all classes and ignored pixels."""
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(count):
        height, width = size[0] + index % 3, size[1] + index % 2
        mask = rng.integers(0, labels.num_classes + 1, (height, width))
        mask[mask == labels.num_classes] = labels.ignore
        pairs.append((rng.integers(0, 256, (height, width, 3), np.uint8), mask.astype(np.uint8)))
    return MemorySplit(pairs, labels)


def split_of(truth: np.ndarray, prediction: np.ndarray, labels: LabelSet = LABELS) -> MemorySplit:
    """Return a split of one image, for which `first_channel` predicts `prediction`."""
    return MemorySplit([(np.repeat(prediction[:, :, None], 3, 2).astype(np.uint8), truth)], labels)


class FirstChannel(nn.Module):
    """A network that predicts the value of the first channel."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes, self.pad_multiple, self.reader = num_classes, 1, PLAIN
        self.normalization = SimpleNamespace(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def forward(
        self, images: torch.Tensor, size: tuple[int, int] | None = None, *, own_grid: bool = False
    ) -> torch.Tensor:
        ids = (images[:, 0] * 255).round()
        return torch.stack([-(ids - k).abs() for k in range(self.num_classes)], 1)


def first_channel(labels: LabelSet = LABELS) -> Predictor:
    return Predictor(FirstChannel(labels.num_classes), labels, device="cpu")


def tiny(labels: LabelSet = LABELS, **options: Any) -> Predictor:
    """Return a predictor of one random convolution."""
    return Predictor(TinyNet(labels.num_classes), labels, device="cpu", **options)


def shown(evaluation: Evaluation, result: dict[str, Any] | None = None) -> str:
    """Return the terminal output of an evaluation, or of this result of it."""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(tables(evaluation.result() if result is None else result, evaluation.metrics))
    return console.export_text()
