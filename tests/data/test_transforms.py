"""Picture and mask stay together; padding is zero and ignored."""

import numpy as np
import pytest
import torch

from seenet.core.settings import TransformSettings
from seenet.data.sampling import Draw
from seenet.data.shapes import ShapesSplit
from seenet.data.training_set import TrainingSet
from seenet.data.transforms import JointTransform, resize_mask

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@pytest.mark.parametrize("factor", [0.5, 0.63, 0.9, 1.0, 1.37, 2.0])
def test_mask_is_not_shifted_against_the_picture(factor: float) -> None:
    """On a ramp whose mask is its own value: the two may differ by rounding and half a source pixel, on average by nothing."""
    ramp = np.tile(np.arange(0, 240, 2, dtype=np.uint8), (40, 1))
    settings = TransformSettings(flip=0, scale=(factor, factor), crop=(30, int(120 * factor) - 4))
    torch.manual_seed(0)
    picture, ids = JointTransform(settings, MEAN, STD, 255)(np.repeat(ramp[:, :, None], 3, 2), ramp)
    grey = (picture[0] * STD[0] + MEAN[0]) * 255
    valid = ids != 255
    inner = valid.clone()
    inner[:, :3] = inner[:, -3:] = False
    difference = (grey - ids)[inner]
    assert difference.abs().max() <= 2 * 0.5 + 0.75  # half a pixel of a slope of 2 a pixel, and the rounding of the picture
    # At exactly half and twice the size all points lie half-way between two, and all are rounded to the same side.
    assert abs(difference.mean()) < (1.01 if factor in {0.5, 2.0} else 0.15)


def test_padding_is_zero_after_normalisation_and_ignored() -> None:
    settings = TransformSettings(flip=0, scale=(1, 1), crop=(12, 20))
    picture, ids = JointTransform(settings, MEAN, STD, 7)(np.full((8, 9, 3), 255, np.uint8), np.zeros((8, 9), np.uint8))
    assert picture.shape == (3, 12, 20)
    assert (picture[:, :8, :9] == 2).all()
    assert (picture[:, 8:] == 0).all()
    assert (picture[:, :, 9:] == 0).all()
    assert (ids[:8, :9] == 0).all()
    assert (ids == 7).sum() == 12 * 20 - 8 * 9


def test_flip_and_rotation_move_both() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[4:12, 4:12] = 255
    mask = (image[..., 0] > 0).astype(np.uint8)
    for settings in (
        TransformSettings(flip=1, scale=(1, 1), crop=(32, 32)),
        TransformSettings(flip=0, scale=(1, 1), rotation=90, crop=(32, 32)),
    ):
        torch.manual_seed(3)
        picture, ids = JointTransform(settings, MEAN, STD, 255)(image, mask)
        inside = (ids == 1) & (ids != 255)
        assert inside.any()
        assert not torch.equal(ids, torch.from_numpy(mask.astype(np.int64)))
        assert ((picture[0] > 0) == inside)[ids != 255].float().mean() > 0.97


def test_large_ids_survive() -> None:
    ids = torch.tensor([[[0, 70_000], [300, 255]]], dtype=torch.int32)
    assert set(resize_mask(ids, (5, 7)).unique().tolist()) == {0, 255, 300, 70_000}


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
