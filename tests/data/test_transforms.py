"""Picture and mask stay together; padding is zero and ignored."""

import random

import numpy as np
import pytest
import torch

from seenet.core.errors import UsageError
from seenet.core.settings import TransformSettings
from seenet.data.sampling import Draw, TrainingSet
from seenet.data.shapes import ShapesSplit
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


def test_any_size_gives_the_crop() -> None:
    for height, width in [(1, 1), (1, 50), (3, 200), (64, 64)]:
        settings = TransformSettings(crop=(17, 23), jitter=0.5, rotation=20)
        picture, ids = JointTransform(settings, MEAN, STD, 255)(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.int32))
        assert (picture.shape, ids.shape, picture.dtype, ids.dtype) == ((3, 17, 23), (17, 23), torch.float32, torch.int64)


def crop_both(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """A user's transform that draws from numpy and Python."""
    top, left = np.random.randint(0, 8), random.randrange(8)  # noqa: NPY002
    return {"image": image[top:, left:], "mask": mask[top:, left:]}


def floats(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    return {"image": image / 255, "mask": mask}


def nothing(image: np.ndarray, mask: np.ndarray) -> None:
    return None


def failing(image: np.ndarray, mask: np.ndarray) -> None:
    raise ValueError("mine is\nbroken")


def empty(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    return {"image": image[:0], "mask": mask[:0]}


def sevens(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    return {"image": image, "mask": np.full_like(mask, 7)}


def test_custom_transforms() -> None:
    split = ShapesSplit("train", 5, 48)

    def samples(name: str) -> TrainingSet:
        settings = TransformSettings(crop=(40, 40), flip=0, scale=(1, 1), custom=name)
        return TrainingSet(split, JointTransform(settings, MEAN, STD, 255, classes=6), seed=4)

    ours = samples(f"{__name__}:crop_both")
    random.seed(1)
    before = random.getstate()
    first = ours[Draw(0, 3)]
    assert random.getstate() == before
    assert torch.equal(first[0], ours[Draw(0, 3)][0])
    different = {ours[Draw(epoch, 3)][0].sum().item() for epoch in range(6)}
    assert len(different) > 3
    messages = {
        "floats": "float64", "nothing": "gave no dict", "failing": "raised ValueError: mine is broken; mend it", "empty": r"mask \(0, 48\)",
        "sevens": r"gave a mask with id 7, expected 0 to 5, or 255 \(ignored\)",
    }  # fmt: skip
    for name, message in messages.items():
        with pytest.raises(UsageError, match=message):
            samples(f"{__name__}:{name}")[Draw(0, 0)]
    for name in ("seenet.nowhere:f", f"{__name__}:missing", "no-colon", f"{__name__}:MEAN"):
        with pytest.raises(UsageError, match=r"transforms\.custom"):
            samples(name)
