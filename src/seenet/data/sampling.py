"""The order of training samples, computed from (seed, step), so that a resume changes nothing."""

import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from seenet.data.masks import MaskReader
from seenet.data.split import Split
from seenet.data.transforms import JointTransform
from seenet.data.windows import is_large, opened_large

MANY_SQUARES = 16
"""Squares that a picture must hold for its part to be read alone; a smaller one is read whole."""


class Draw(NamedTuple):
    """One sample of the training stream; its random transforms depend on it and the seed alone."""

    epoch: int
    sample: int


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of an epoch: a permutation of 0..count-1 that depends on (seed, epoch)."""
    return np.random.default_rng(np.random.SeedSequence((seed, epoch))).permutation(count)


def step_draws(step: int, batch: int, count: int, seed: int) -> list[Draw]:
    """Return the global batch of a step: `batch` samples from position step * batch.

    Positions count along the endless sequence of epochs.
    """
    positions = [divmod(position, count) for position in range(step * batch, (step + 1) * batch)]
    orders = {epoch: epoch_order(seed, epoch, count) for epoch in {epoch for epoch, _ in positions}}
    return [Draw(epoch, int(orders[epoch][place])) for epoch, place in positions]


class StepSampler:
    """Batch sampler of a rank's micro-batches from `first_step` up to, not including, `last_step`.

    Rank r of `world` takes the r-th slice of each global batch, in `accumulate` equal parts.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        seed: int,
        first_step: int,
        last_step: int,
        *,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ) -> None:
        if batch % (world * accumulate):
            raise ValueError(
                f"batch {batch} does not divide by {world} ranks x {accumulate} micro-batches"
            )
        self.count, self.batch, self.seed = count, batch, seed
        self.steps = range(first_step, last_step)
        self.rank, self.world, self.accumulate = rank, world, accumulate

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate

    def __iter__(self) -> Iterator[list[Draw]]:
        size = self.batch // self.world
        micro = size // self.accumulate
        for step in self.steps:
            draws = step_draws(step, self.batch, self.count, self.seed)
            for start in range(self.rank * size, (self.rank + 1) * size, micro):
                yield draws[start : start + micro]


class TrainingSet(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Samples by `Draw`: image, mask and (epoch, index).

    Shapes are those of `JointTransform`; its random numbers depend on (seed, epoch, index) alone.
    Of a large TIFF only a square is read (`windows`).
    """

    def __init__(self, split: Split, transform: JointTransform, seed: int) -> None:
        self.split, self.transform, self.seed = split, transform, seed

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        epoch, index = draw
        # Forking all generators covers a user's own transform and leaves other draws unchanged.
        seeds = np.random.SeedSequence((self.seed, epoch, index)).generate_state(3)
        numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(seeds[0]))
                np.random.seed(seeds[1])  # noqa: NPY002 (a user's transform may use it)
                random.seed(int(seeds[2]))
                part = read_square(self.split, index, self.transform.reach)
                image, mask = part or self.split.read(index)
                image_tensor, ids = self.transform(image, mask)
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
        return image_tensor, ids, torch.tensor([epoch, index])


def read_square(split: Split, index: int, side: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Read a random square of a large image, and of its mask; every place is equally likely.

    Random numbers come from torch's global generator. Of a mask that is no TIFF the whole is
    decoded.

    Args:
        split: Any split.
        index: Number of the sample.
        side: Side of the square in pixels.

    Returns:
        The parts, as `Split.read`; None if the image is not large, so that it is read whole.

    Raises:
        DataError: A file cannot be read, or the mask has another size.
    """
    if not is_large(split, index, MANY_SQUARES * side**2):
        return None
    with opened_large(split, index) as picture:
        height, width = picture.shape[:2]
        top, left = (
            int(torch.randint(max(0, length - side) + 1, ()).item()) for length in (height, width)
        )
        rows, columns = slice(top, top + side), slice(left, left + side)
        image: np.ndarray = picture[rows, columns]
    decode, path = split.decode, split.masks[index]
    if isinstance(decode, MaskReader):
        return image, decode.part(path, rows, columns)
    return image, decode(path)[rows, columns]
