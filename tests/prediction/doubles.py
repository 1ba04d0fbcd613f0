"""What tests of prediction share: small networks with known answers, pictures, commands."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.cli import main
from seenet.core.labels import LabelSet, voc_colours
from seenet.core.picture_reader import PLAIN
from seenet.model.segmenter import Window
from seenet.prediction.predictor import Predictor

LABELS = LabelSet("toy", ("sky", "road", "tree"), voc_colours(3))
INFO = {"file": "red.safetensors", "sha256": "0" * 64}


class Double(nn.Module):
    """Network whose subclass computes scores on the head's own grid; they are resized once."""

    def __init__(self, num_classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.normalization = SimpleNamespace(mean=mean, std=std)
        self.num_classes, self.pad_multiple, self.reader = num_classes, 1, PLAIN

    def forward(
        self,
        images: Tensor,
        size: tuple[int, int] | None = None,
        *,
        own_grid: bool = False,
        window: Window | None = None,
    ) -> Tensor:
        scores = self.scores(images)
        if own_grid:
            return scores
        size = size or images.shape[-2:]
        return F.interpolate(scores, size, mode="bilinear", align_corners=False)


class TinyNet(Double):
    """One strided convolution and batch norm; the grid has stride 4."""

    def __init__(self, num_classes: int = 3, seed: int = 0) -> None:
        super().__init__(num_classes, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, num_classes, 5, stride=4, padding=2)
        self.norm = nn.BatchNorm2d(num_classes)

    def scores(self, images: Tensor) -> Tensor:
        return 3 * self.norm(self.conv(images))


class RedNet(Double):
    """Class of a pixel by its red value: 0 below 85, 1 below 170, else 2; exact."""

    def __init__(self) -> None:
        super().__init__(3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.calls = 0

    def scores(self, images: Tensor) -> Tensor:
        self.calls += 1
        red = images[:, :1] * 255
        return torch.cat([-(red - centre).abs() for centre in (42.0, 127.5, 213.0)], 1)


def red_predictor(**keywords: Any) -> Predictor:
    """A predictor as if a file held `RedNet`, so that it predicts into folders."""
    return Predictor(RedNet(), LABELS, device="cpu", **{"info": INFO, **keywords})


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random pixels, H x W x 3 uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def draw(path: Path, seed: int = 0, size: tuple[int, int] = (6, 9)) -> np.ndarray:
    """Write a random picture."""
    image = picture(*size, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by relative name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def raising(error: BaseException) -> Callable[..., NoReturn]:
    """A function that raises `error`, whatever it is called with."""

    def function(*_: Any, **__: Any) -> NoReturn:
        raise error

    return function


def seenet_command(*words: object) -> int:
    """Run `seenet WORD...` in this process; return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    return int(ended.value.code or 0)
