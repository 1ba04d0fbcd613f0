"""What is seen when: arithmetic on (seed, step), so that workers, processes and a resume change nothing."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Draw(NamedTuple):
    """One sample of the training stream; with the seed, all that its transforms depend on."""

    epoch: int
    sample: int


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of an epoch: a permutation of 0..count-1 that depends on (seed, epoch) alone."""
    return np.random.default_rng(np.random.SeedSequence((seed, epoch))).permutation(count)


def step_draws(step: int, batch: int, count: int, seed: int) -> list[Draw]:
    """The global batch of a step: positions step * batch onwards of the endless stream of epochs."""
    draws = []
    order, order_epoch = np.empty(0, int), -1
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, count)
        if epoch != order_epoch:
            order, order_epoch = epoch_order(seed, epoch, count), epoch
        draws.append(Draw(epoch, int(order[place])))
    return draws


class StepSampler:
    """Yields a rank's micro-batches from `first_step` up to `last_step`.

    Rank r of `world` takes the r-th slice of each global batch, in `accumulate` equal parts; together they are the global batch.
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
