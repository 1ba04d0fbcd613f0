"""Synthetic scenes, drawn on the fly, with exact labels and a void rim.

Overlapping objects on a textured ground; only their shape distinguishes the classes.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from seenet.core.errors import UsageError
from seenet.core.files import digest
from seenet.core.labels import LabelSet
from seenet.core.settings import DataSettings
from seenet.data.split import label_parts

SHAPES = LabelSet(
    "shapes",
    ("background", "disc", "square", "triangle", "ring", "pole"),
    ((40, 44, 52), (224, 90, 71), (66, 135, 245), (245, 187, 66), (140, 90, 200), (80, 190, 120)),
    rim=True,
)
DISC, SQUARE, TRIANGLE, RING, POLE = 1, 2, 3, 4, 5
COARSE = 5
"""Points per side of the coarse noise that is interpolated to a smooth texture."""
_SEEDS = {"train": 0, "val": 1, "test": 2}


def open_shapes(settings: DataSettings, which: str) -> "ShapesSplit":
    """Open train with `data.count` scenes; val and test have a tenth, at least 50."""
    if which not in _SEEDS:
        raise UsageError(f"shapes has no split {which}; choose from {', '.join(_SEEDS)}")
    count = settings.count if which == "train" else max(50, settings.count // 10)
    return ShapesSplit(which, count, settings.size)


@dataclass(frozen=True)
class ShapesSplit:
    """`count` scenes of `side` x `side` pixels; a scene depends on (split, index, side) alone."""

    which: str
    count: int
    side: int
    labels = SHAPES

    @property
    def name(self) -> str:
        return f"shapes/{self.which}"

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return f"{self.which}-{index:05d}"

    def paths(self, index: int) -> tuple[Path | None, Path | None]:
        return None, None

    def stamp(self, index: int) -> str:
        return digest(*label_parts(self.labels), self.which, str(index), str(self.side))

    def image(self, index: int) -> np.ndarray:
        return self._scene(index)[0]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw an image and its mask, with a void rim one pixel wide around each object."""
        image, owner, classes = self._scene(index)
        mask = classes[owner]
        mask[outer_rim(owner)] = SHAPES.ignore
        return image, mask

    def _scene(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw a scene.

        Returns:
            The image, the number of the topmost object at each pixel (0: ground; a higher number
            lies above a lower one), and the class of each object.
        """
        rng = np.random.default_rng(np.random.SeedSequence((_SEEDS[self.which], index, self.side)))
        shape = (self.side, self.side)
        image = _texture(rng, self.side, np.ones(shape, bool), contrast=45).reshape(*shape, 3)
        owner = np.zeros(shape, np.uint8)
        kinds = [0, *rng.integers(DISC, POLE + 1, rng.integers(4, 9)).tolist()]
        for number, kind in enumerate(kinds[1:], start=1):
            inside = _object(rng, kind, self.side)
            owner[inside] = number
            image[inside] = _texture(rng, self.side, inside, contrast=25)
        noise = rng.normal(0, 4, image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8), owner, np.array(kinds, np.uint8)


def outer_rim(owner: np.ndarray) -> np.ndarray:
    """Return a mask of the pixels directly beside an object that lies above them."""
    rim = np.zeros(owner.shape, bool)
    rim[1:] |= owner[:-1] > owner[1:]
    rim[:-1] |= owner[1:] > owner[:-1]
    rim[:, 1:] |= owner[:, :-1] > owner[:, 1:]
    rim[:, :-1] |= owner[:, 1:] > owner[:, :-1]
    return rim


def _texture(rng: np.random.Generator, side: int, where: np.ndarray, contrast: float) -> np.ndarray:
    """Draw n x 3 floats for the n pixels of `where`: a colour, a gradient and smooth noise."""
    colour = rng.uniform(50, 205, 3)
    ramp = np.linspace(-1, 1, side)
    gradient = (rng.uniform(-0.5, 0.5) * ramp)[:, None] + (rng.uniform(-0.5, 0.5) * ramp)[None, :]
    weights = _interpolation(side)
    noise = weights @ rng.normal(0, 1, (COARSE, COARSE)) @ weights.T
    shade = contrast * (gradient + 0.5 * noise)
    texture: np.ndarray = colour + shade[where][:, None] * rng.uniform(0.6, 1, 3)
    return texture


@cache
def _interpolation(side: int) -> np.ndarray:
    """Return side x COARSE weights of linear interpolation between pixel centres."""
    position = np.clip((np.arange(side) + 0.5) * COARSE / side - 0.5, 0, COARSE - 1)
    weights: np.ndarray = np.maximum(0, 1 - abs(position[:, None] - np.arange(COARSE)))
    return weights


def _object(rng: np.random.Generator, kind: int, side: int) -> np.ndarray:
    """Return a side x side mask of an object of random position, size and rotation.

    Poles and rings are at least 3 pixels thick.
    """
    y, x = np.ogrid[0.5:side, 0.5:side]
    radius = rng.uniform(0.09, 0.21) * side
    centre_y, centre_x = rng.uniform(0.1, 0.9, 2) * side
    angle = rng.uniform(0, 2 * np.pi)
    u = (x - centre_x) * np.cos(angle) + (y - centre_y) * np.sin(angle)
    v = (y - centre_y) * np.cos(angle) - (x - centre_x) * np.sin(angle)
    if kind == DISC:
        return np.asarray(u**2 + v**2 <= radius**2)
    if kind == SQUARE:
        return np.asarray(np.maximum(abs(u), abs(v)) <= 0.85 * radius)
    if kind == TRIANGLE:
        # The intersection of three half-planes at 120 degrees.
        distances = [u * np.cos(a) + v * np.sin(a) for a in (0, 2 * np.pi / 3, 4 * np.pi / 3)]
        return np.asarray(np.maximum.reduce(distances) <= 0.62 * radius)
    if kind == RING:
        thickness = max(3.0, rng.uniform(0.25, 0.4) * radius)
        distance = np.hypot(u, v)
        return np.asarray((distance <= radius) & (distance >= radius - thickness))
    half = max(1.5, rng.uniform(0.012, 0.025) * side)
    lean = rng.uniform(-0.15, 0.15)
    offset = (x - centre_x) - lean * (y - centre_y)
    return np.asarray(
        (abs(offset) <= half * np.hypot(1, lean)) & (abs(y - centre_y) <= 1.8 * radius)
    )
