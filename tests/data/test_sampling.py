"""The order of samples is arithmetic: ranks, micro-batches, workers and a resume keep it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from seenet.core.settings import TransformSettings
from seenet.data.sampling import Draw, StepSampler, TrainingSet, epoch_order, step_draws
from seenet.data.shapes import ShapesSplit
from seenet.data.transforms import JointTransform

counts = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)


def samples(**settings: float) -> TrainingSet:
    transform = TransformSettings(crop=(32, 32), **settings)
    joint = JointTransform(transform, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 255)
    return TrainingSet(ShapesSplit("train", 6, 48), joint, seed=4)


@given(counts, seeds, st.integers(0, 5))
def test_an_epoch_is_a_fixed_permutation(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(seed, epoch, count).tolist()
    assert sorted(order) == list(range(count))
    assert order == epoch_order(seed, epoch, count).tolist()


@given(counts, st.integers(1, 9), seeds)
def test_steps_go_through_whole_epochs(count: int, batch: int, seed: int) -> None:
    steps = -(-2 * count // batch)
    found = [draw for step in range(steps) for draw in step_draws(step, batch, count, seed)]
    expected = [(epoch, int(i)) for epoch in (0, 1) for i in epoch_order(seed, epoch, count)]
    assert found[: 2 * count] == expected


@given(counts, st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(0, 4), seeds)
def test_ranks_and_micro_batches_are_the_global_batch(
    count: int, micro: int, world: int, accumulate: int, first: int, seed: int
) -> None:
    batch = micro * world * accumulate
    per_rank = [
        list(
            StepSampler(count, batch, seed, first, 6, rank=rank, world=world, accumulate=accumulate)
        )
        for rank in range(world)
    ]
    for number, step in enumerate(range(first, 6)):
        steps = slice(number * accumulate, (number + 1) * accumulate)
        found = [draw for batches in per_rank for draws in batches[steps] for draw in draws]
        assert found == step_draws(step, batch, count, seed)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    dataset, sampler = samples(), StepSampler(6, 4, 4, 1, 4)
    found = list(DataLoader(dataset, batch_sampler=sampler, num_workers=workers))
    assert len(found) == 3
    for batch, draws in zip(found, sampler, strict=True):
        columns = zip(*(dataset[draw] for draw in draws), strict=True)
        assert all(
            torch.equal(part, torch.stack(column))
            for part, column in zip(batch, columns, strict=True)
        )


def test_a_sample_depends_on_seed_epoch_and_index_alone() -> None:
    dataset = samples(jitter=0.3, rotation=10)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = dataset[Draw(2, 3)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert all(torch.equal(a, b) for a, b in zip(first, dataset[Draw(2, 3)], strict=True))
    assert not torch.equal(first[0], dataset[Draw(3, 3)][0])
