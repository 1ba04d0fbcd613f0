"""What training sees when: arithmetic on (seed, step), so that a resume changes nothing."""

import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from seenet.data.split import Split
from seenet.data.transforms import JointTransform


class Draw(NamedTuple):
    """One sample of the training stream; with the seed, all that its transforms depend on."""

    epoch: int
    sample: int


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Permute 0..count-1 by (seed, epoch) alone: the order of an epoch."""
    return np.random.default_rng(np.random.SeedSequence((seed, epoch))).permutation(count)


def step_draws(step: int, batch: int, count: int, seed: int) -> list[Draw]:
    """Draw the global batch of a step.

    It is positions step * batch onwards of the endless stream of epochs.
    """
    draws = []
    order, order_epoch = np.empty(0, int), -1
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, count)
        if epoch != order_epoch:
            order, order_epoch = epoch_order(seed, epoch, count), epoch
        draws.append(Draw(epoch, int(order[place])))
    return draws


class StepSampler:
    """Yield a rank's micro-batches from `first_step` up to `last_step`.

    Rank r of `world` takes the r-th slice of each global batch, in `accumulate` equal parts;
    together they are the global batch.
    """

    def __init__(
        self, count: int, batch: int, seed: int, first_step: int, last_step: int, *, rank: int = 0, world: int = 1, accumulate: int = 1
    ) -> None:
        if batch % (world * accumulate):
            raise ValueError(f"batch {batch} does not divide by {world} ranks x {accumulate} micro-batches")
        self.count, self.batch, self.seed = count, batch, seed
        self.steps = range(first_step, last_step)
        self.rank, self.world, self.accumulate = rank, world, accumulate

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate

    def __iter__(self) -> Iterator[list[Draw]]:
        part = self.batch // self.world
        micro = part // self.accumulate
        for step in self.steps:
            mine = step_draws(step, self.batch, self.count, self.seed)[self.rank * part : (self.rank + 1) * part]
            for start in range(0, part, micro):
                yield mine[start : start + micro]


class TrainingSet(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Samples by `Draw`: picture, mask and (epoch, index).

    Shapes are those of `JointTransform`; what is drawn depends on (seed, epoch, index) alone.
    """

    def __init__(self, split: Split, transform: JointTransform, seed: int) -> None:
        self.split, self.transform, self.seed = split, transform, seed

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        epoch, index = draw
        image, mask = self.split.read(index)
        # In a fork of all generators: a user's transform is covered, and no other draws move.
        seeds = np.random.SeedSequence((self.seed, epoch, index)).generate_state(3)
        numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(seeds[0]))
                np.random.seed(seeds[1])  # noqa: NPY002 (the one a user's transform would use)
                random.seed(int(seeds[2]))
                picture, ids = self.transform(image, mask)
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
        return picture, ids, torch.tensor([epoch, index])
