"""The order of the stream is arithmetic: slices, ranks, micro-batches and a resume change nothing."""

from hypothesis import given
from hypothesis import strategies as st

from seenet.data.sampling import StepSampler, epoch_order, step_draws

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
