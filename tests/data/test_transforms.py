"""Image and mask are transformed alike; padding is zero and ignored."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seenet.core.errors import UsageError
from seenet.core.settings import TransformSettings
from seenet.data.sampling import Draw, TrainingSet
from seenet.data.shapes import ShapesSplit
from seenet.data.transforms import JointTransform, resize_mask

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
SQUARE = np.zeros((32, 32), np.uint8)
SQUARE[4:12, 4:12] = 1


def apply(
    image: np.ndarray, mask: np.ndarray, ignore: int = 255, **settings: Any
) -> tuple[Tensor, Tensor]:
    settings = {"flip": 0, "scale": (1, 1), **settings}
    return JointTransform(TransformSettings(**settings), MEAN, STD, ignore)(image, mask)


@pytest.mark.parametrize("factor", [0.5, 0.63, 0.9, 1.0, 1.37, 2.0])
def test_scaling_does_not_shift_the_mask(factor: float) -> None:
    """A ramp is its own mask: they differ by rounding and half a pixel, on average by nothing."""
    ramp = np.tile(np.arange(0, 240, 2, dtype=np.uint8), (40, 1))
    crop = (30, int(120 * factor) - 4)
    torch.manual_seed(0)
    image, ids = apply(np.repeat(ramp[:, :, None], 3, 2), ramp, scale=(factor, factor), crop=crop)
    inner = (ids != 255)[:, 3:-3]
    difference = ((image[0] * STD[0] + MEAN[0]) * 255 - ids)[:, 3:-3][inner]
    # Half a pixel of a slope of 2, and the rounding of the image.
    assert difference.abs().max() <= 2 * 0.5 + 0.75
    # At half and twice the size all points lie between two pixels and are rounded to one side.
    assert abs(difference.mean()) < (1.01 if factor in {0.5, 2.0} else 0.15)


def test_padding_is_zero_after_normalisation_and_ignored() -> None:
    image, ids = apply(
        np.full((8, 9, 3), 255, np.uint8), np.zeros((8, 9), np.uint8), ignore=7, crop=(12, 20)
    )
    expected = torch.zeros(3, 12, 20)
    expected[:, :8, :9] = 2
    assert torch.equal(image, expected)
    assert torch.equal(ids, torch.where(expected[0] == 2, 0, 7))


@pytest.mark.parametrize("settings", [{"flip": 1}, {"rotation": 90}])
def test_flip_and_rotation_move_both(settings: dict[str, float]) -> None:
    torch.manual_seed(3)
    image, ids = apply(np.repeat(SQUARE[:, :, None] * 255, 3, 2), SQUARE, crop=(32, 32), **settings)
    assert (ids == 1).any()
    assert not torch.equal(ids, torch.from_numpy(SQUARE.astype(np.int64)))
    assert ((image[0] > 0) == (ids == 1))[ids != 255].float().mean() > 0.97


def test_large_ids_survive() -> None:
    ids = torch.tensor([[[0, 70_000], [300, 255]]], dtype=torch.int32)
    assert set(resize_mask(ids, (5, 7)).unique().tolist()) == {0, 255, 300, 70_000}


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 200), (64, 64)])
def test_any_size_gives_the_crop(size: tuple[int, int]) -> None:
    image, ids = apply(
        np.zeros((*size, 3), np.uint8), np.zeros(size, np.int32),
        flip=0.5, scale=(0.5, 2), crop=(17, 23), jitter=0.5, rotation=20,
    )  # fmt: skip
    assert (image.shape, image.dtype) == ((3, 17, 23), torch.float32)
    assert (ids.shape, ids.dtype) == ((17, 23), torch.int64)


def crop_both(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Draw from numpy's and Python's generators."""
    top, left = np.random.randint(0, 8), random.randrange(8)  # noqa: NPY002
    return {"image": image[top:, left:], "mask": mask[top:, left:]}


def failing(image: np.ndarray, mask: np.ndarray) -> None:
    raise ValueError("mine is\nbroken")


def custom(name: str) -> TrainingSet:
    settings = TransformSettings(crop=(40, 40), flip=0, scale=(1, 1), custom=name)
    transform = JointTransform(settings, MEAN, STD, 255, classes=6)
    return TrainingSet(ShapesSplit("train", 5, 48), transform, seed=4)


def test_random_numbers_of_a_custom_transform_are_seeded() -> None:
    samples = custom(f"{__name__}:crop_both")
    before = random.getstate()
    first = samples[Draw(0, 3)]
    assert random.getstate() == before
    assert torch.equal(first[0], samples[Draw(0, 3)][0])
    assert len({samples[Draw(epoch, 3)][0].sum().item() for epoch in range(6)}) > 3


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (failing, "raised ValueError: mine is broken; fix it"),
        (lambda image, mask: None, "gave no dict"),
        (lambda image, mask: {"image": image / 255, "mask": mask}, "float64"),
        (lambda image, mask: {"image": image[:0], "mask": mask[:0]}, r"mask \(0, 48\)"),
        (
            lambda image, mask: {"image": image, "mask": np.full_like(mask, 7)},
            r"gave a mask with id 7, expected 0 to 5, or 255 \(ignored\)",
        ),
    ],
)
def test_wrong_results_of_a_custom_transform(
    transform: Callable[..., Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "wrong", transform)
    with pytest.raises(UsageError, match=message):
        custom(f"{__name__}:wrong")[Draw(0, 0)]


@pytest.mark.parametrize(
    "name", ["seenet.nowhere:f", f"{__name__}:missing", "no-colon", f"{__name__}:MEAN"]
)
def test_a_custom_transform_that_cannot_be_imported(name: str) -> None:
    with pytest.raises(UsageError, match=r"transforms\.custom"):
        custom(name)
