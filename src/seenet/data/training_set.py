"""Samples as the network sees them in training."""

import random

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from seenet.data.sampling import Draw
from seenet.data.split import Split
from seenet.data.transforms import JointTransform


class TrainingSet(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """By `Draw`: picture, mask and (epoch, index); what is drawn depends on (seed, epoch, index) alone."""

    def __init__(self, split: Split, transform: JointTransform, seed: int) -> None:
        self.split, self.transform, self.seed = split, transform, seed

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        epoch, index = draw
        image, mask = self.split.read(index)
        # Generators of a fork, so that a user's own transform is covered and nobody else's draws move.
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
