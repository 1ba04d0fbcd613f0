"""The predictor's scores against the definition in float64, and what it leaves unchanged."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seenet.core.errors import DataError, UsageError
from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.prediction.predictor import Predictor
from seenet.prediction.tiles import Tiling
from tests.prediction.doubles import LABELS, RedNet, TinyNet, picture


def scaled(side: int, scale: float) -> int:
    return max(1, math.floor(scale * side + 0.5))


def oracle(
    model: TinyNet, image: np.ndarray, scales: list[float], flip: bool, size: tuple[int, int]
) -> torch.Tensor:
    """Definitions, "Scales and flip", word by word, in float64: one picture at a time, every
    probability kept, then their mean.
    """
    model = copy.deepcopy(model).double().eval()
    pixels = torch.from_numpy(image.astype(np.float64) / 255).permute(2, 0, 1)[None]
    mean, std = (
        torch.tensor(part, dtype=torch.float64)[:, None, None]
        for part in (model.normalization.mean, model.normalization.std)
    )
    kept = []
    with torch.no_grad():
        for scale in scales:
            for mirrored in [False, True] if flip else [False]:
                x = (pixels - mean) / std
                x = torch.flip(x, [3]) if mirrored else x
                sides = tuple(scaled(side, scale) for side in image.shape[:2])
                if sides != image.shape[:2]:
                    x = F.interpolate(
                        x, sides, mode="bilinear", align_corners=False, antialias=scale < 1
                    )
                p = F.softmax(model(x, size), 1)[0]
                kept.append(torch.flip(p, [2]) if mirrored else p)
    return torch.stack(kept).mean(0)


@pytest.mark.parametrize("size", [None, (20, 61)])
@pytest.mark.parametrize(
    ("scales", "flip"),
    [([1.0], True), ([0.5, 1.0, 1.75], False), ([0.75, 1.25], True), ([0.3], False)],
)
def test_scales_and_flip_equal_the_definition(scales, flip, size):
    model, image = TinyNet(), picture(33, 46)
    scores = Predictor(model, LABELS, device="cpu", scales=scales, flip=flip).scores(image, size)
    expected = oracle(model, image, scales, flip, size or (33, 46))
    # Rounding of the scores, of size 10, reaches the probabilities.
    for probabilities in (scores.double().softmax(0), scores.double().exp()):
        torch.testing.assert_close(probabilities, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((0.5, 1.7), True)])
@pytest.mark.parametrize("tiling", [None, Tiling(64, 0)])
def test_networks_see_channels_last_pictures_to_the_last_stride(scales, tiling, flip):
    """A batch of one may have any stride for its pictures and yet be contiguous; torch then runs
    convolutions in plain order.
    """
    model, seen = create_model("seenet", backbone="mobilenetv3_small_050", num_classes=3), []
    # The meta device of `pass_bytes` is left out.
    model.register_forward_pre_hook(
        lambda _, images: seen.append(images[0]) if images[0].device.type == "cpu" else None
    )
    predictor = Predictor(model, LABELS, device="cpu", scales=scales, tiling=tiling, flip=flip)
    image = picture(128, 200)
    planes = np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 2, 0)), 0, 2)
    assert np.array_equal(predictor.mask(image), predictor.mask(planes))
    assert len(seen) >= 2 * len(scales)
    for images in seen:
        expected = torch.empty_like(images, memory_format=torch.channels_last)
        assert images.stride() == expected.stride()


def test_a_probability_of_zero_leaves_scores_finite():
    class Sure(RedNet):
        def scores(self, images):
            return super().scores(images) * 1000

    scores = Predictor(Sure(), LABELS, device="cpu", flip=True).scores(picture(5, 5))
    assert torch.isfinite(scores).all()


def test_bf16_is_close_and_returns_float32():
    image = picture(40, 56)
    scores = Predictor(TinyNet(), LABELS, device="cpu", precision="bf16").scores(image)
    exact = Predictor(TinyNet(), LABELS, device="cpu").scores(image)
    assert scores.dtype == torch.float32
    assert 0 < (scores - exact).abs().max() < 0.2


@pytest.mark.parametrize(
    "keywords", [{"precision": "fp8"}, {"device": "tpu"}, {"device": "cuda:99"}]
)
def test_unknown_devices_and_precisions_are_refused(keywords):
    with pytest.raises(UsageError):
        Predictor(RedNet(), LABELS, **{"device": "cpu", **keywords})


def test_features_are_those_of_the_scored_pass():
    model = create_model(backbone="resnet10t", num_classes=6, width=8, p_out=16)
    predictor, image = Predictor(model, SHAPES, device="cpu"), picture(45, 61)
    features = predictor.features(image)
    torch.testing.assert_close(features["logits"][0], predictor.scores(image), rtol=1e-5, atol=1e-5)
    assert {"B1", "B2", "B3", "B4", "P2", "P3", "P4", "P_out", "attention"} <= set(features)
    with pytest.raises(UsageError, match="shows nothing but its scores"):
        Predictor(TinyNet(), LABELS, device="cpu").features(image)
    with pytest.raises(DataError, match="expected uint8"):
        predictor.features(image.astype(np.float32))
