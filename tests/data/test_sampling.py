"""The order of the stream is arithmetic: slices, ranks, micro-batches and a resume change nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from seenet.core.settings import TransformSettings
from seenet.data.sampling import Draw, StepSampler, TrainingSet, epoch_order, step_draws
from seenet.data.shapes import ShapesSplit
from seenet.data.transforms import JointTransform

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

counts = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)


@given(counts, seeds, st.integers(0, 5))
def test_an_epoch_is_a_permutation_of_seed_and_epoch(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(seed, epoch, count)
    assert sorted(order.tolist()) == list(range(count))
    assert order.tolist() == epoch_order(seed, epoch, count).tolist()


@given(counts, st.integers(1, 9), seeds)
def test_the_stream_goes_through_whole_epochs(count: int, batch: int, seed: int) -> None:
    steps = -(-2 * count // batch)
    stream = [draw for step in range(steps) for draw in step_draws(step, batch, count, seed)][: 2 * count]
    assert [draw.sample for draw in stream] == [*epoch_order(seed, 0, count), *epoch_order(seed, 1, count)]
    assert [draw.epoch for draw in stream] == [0] * count + [1] * count


@given(counts, st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(0, 4), seeds)
def test_ranks_and_micro_batches_are_the_global_batch(count: int, micro: int, world: int, accumulate: int, first: int, seed: int) -> None:
    batch = micro * world * accumulate
    parts = [list(StepSampler(count, batch, seed, first, 6, rank=rank, world=world, accumulate=accumulate)) for rank in range(world)]
    for number, step in enumerate(range(first, 6)):
        mine = [draw for part in parts for piece in part[number * accumulate : (number + 1) * accumulate] for draw in piece]
        assert mine == step_draws(step, batch, count, seed)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    samples = TrainingSet(ShapesSplit("train", 6, 48), JointTransform(TransformSettings(crop=(32, 32)), MEAN, STD, 255), seed=4)
    sampler = StepSampler(6, 4, 4, 1, 4)
    expected = [[samples[draw] for draw in draws] for draws in sampler]
    found = list(DataLoader(samples, batch_sampler=sampler, num_workers=workers))
    assert len(found) == len(expected) == 3
    for batch, single in zip(found, expected, strict=True):
        for part, column in zip(batch, zip(*single, strict=True), strict=True):
            assert torch.equal(part, torch.stack(column))


def test_draws_depend_on_seed_epoch_and_index_alone() -> None:
    split = ShapesSplit("train", 5, 48)
    settings = TransformSettings(crop=(32, 32), jitter=0.3, rotation=10)
    samples = TrainingSet(split, JointTransform(settings, MEAN, STD, 255), seed=4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = samples[Draw(2, 3)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again = samples[Draw(2, 3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], samples[Draw(3, 3)][0])
