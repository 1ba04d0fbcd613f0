import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from seenet.core.errors import DataError, NotFiniteError, UsageError
from seenet.core.labels import LabelSet, voc_colours
from seenet.model import create_model
from seenet.prediction import stripes
from seenet.prediction.predictor import Predictor, evaluating, resized, to_mask
from seenet.prediction.tiles import Tiling
from tests.prediction.doubles import LABELS, RedNet, TinyNet


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def normalized(model: TinyNet, image: np.ndarray) -> torch.Tensor:
    pixels = torch.from_numpy(image.astype(np.float64) / 255).permute(2, 0, 1)[None]
    mean, std = (torch.tensor(part, dtype=torch.float64)[:, None, None] for part in (model.normalization.mean, model.normalization.std))
    return (pixels - mean) / std


def oracle(model: TinyNet, image: np.ndarray, scales: list[float], flip: bool, size: tuple[int, int]) -> torch.Tensor:
    """Definitions, "Scales and flip", word by word, in float64: one picture at a time, every probability kept, then their mean."""
    model = copy.deepcopy(model).double().eval()
    kept = []
    with torch.no_grad():
        for scale in scales:
            for mirrored in [False, True] if flip else [False]:
                x = normalized(model, image).double()
                if mirrored:
                    x = torch.flip(x, [3])
                height, width = (max(1, math.floor(scale * side + 0.5)) for side in image.shape[:2])
                if (height, width) != image.shape[:2]:
                    x = F.interpolate(x, (height, width), mode="bilinear", align_corners=False, antialias=scale < 1)
                p = F.softmax(model(x, size), 1)[0]
                kept.append(torch.flip(p, [2]) if mirrored else p)
    return torch.stack(kept).mean(0)


def test_one_scale_gives_the_networks_own_logits():
    model, image = TinyNet().eval(), picture(37, 53)
    scores = Predictor(model, LABELS, device="cpu").scores(image)
    with torch.no_grad():
        expected = model(normalized(model, image).float())[0]
    assert scores.dtype == torch.float32
    assert scores.shape == (3, 37, 53)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [None, (20, 61)])
@pytest.mark.parametrize(("scales", "flip"), [([1.0], True), ([0.5, 1.0, 1.75], False), ([0.75, 1.25], True), ([0.3], False)])
def test_scales_and_flip_equal_the_definition(scales, flip, size):
    model, image = TinyNet(), picture(33, 46)
    scores = Predictor(model, LABELS, device="cpu", scales=scales, flip=flip).scores(image, size)
    expected = oracle(model, image, scales, flip, size or (33, 46))
    # Rounding of the scores, of size 10, reaches the probabilities.
    torch.testing.assert_close(scores.double().softmax(0), expected, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(scores.double().exp(), expected, rtol=1e-5, atol=2e-6)


def test_mirror_shares_the_pass_of_its_picture():
    seen = []

    class Seen(TinyNet):
        def forward(self, images, size=None, **options):
            seen.append((len(images), *images.shape[-2:]))
            if len(images) == 2:
                assert torch.equal(images[1], images[0].flip(-1))
            return super().forward(images, size, **options)

    Predictor(Seen(), LABELS, device="cpu", scales=(0.5, 1, 1.5), flip=True).scores(picture(20, 30))
    assert seen == [(2, 10, 15), (2, 20, 30), (2, 30, 45)]
    Predictor(Seen(), LABELS, device="cpu", scales=(0.5, 1)).scores(picture(20, 30))
    assert seen[3:] == [(1, 10, 15), (1, 20, 30)]


@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((0.5, 1.7), True)])
@pytest.mark.parametrize("tiling", [None, Tiling(64, 0)])
def test_networks_see_channels_last_pictures_to_the_last_stride(scales, tiling, flip):
    """A batch of one may have any stride for its pictures and yet be contiguous; torch runs convolutions in plain order then."""
    model, seen = create_model("seenet", backbone="mobilenetv3_small_050", num_classes=3), []
    model.register_forward_pre_hook(lambda _, images: seen.append(images[0]) if images[0].device.type == "cpu" else None)
    predictor, image = Predictor(model, LABELS, device="cpu", scales=scales, tiling=tiling, flip=flip), picture(128, 200)
    planes = np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 2, 0)), 0, 2)
    assert np.array_equal(predictor.mask(image), predictor.mask(planes))
    assert len(seen) >= 2 * len(scales)
    for images in seen:
        assert images.stride() == torch.empty_like(images, memory_format=torch.channels_last).stride()


@pytest.mark.parametrize(("options", "rounding"), [({}, 0.0), ({"scales": (0.5, 1.3), "flip": True}, 1e-6)])
def test_height_of_strips_does_not_matter(options, rounding, monkeypatch):
    """Softmax rounds by the place in memory, and by threads."""
    image, scores = picture(50, 40), []
    for numbers in (1, 3 * 40 * 11, 10**6):
        monkeypatch.setattr(stripes, "STRIPE", {"cpu": numbers})
        scores.append(Predictor(TinyNet(), LABELS, device="cpu", **options).scores(image))
    for other in scores[1:]:
        torch.testing.assert_close(scores[0], other, rtol=0, atol=rounding)


def test_flip_makes_the_answer_mirror_with_the_picture():
    predictor, image = Predictor(TinyNet(), LABELS, device="cpu", flip=True), picture(24, 40)
    mirrored = predictor.scores(np.ascontiguousarray(image[:, ::-1]))
    torch.testing.assert_close(mirrored.flip(-1), predictor.scores(image), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [0.001, 0.4, 1.0, 2.3])
def test_every_small_size_works(scale):
    predictor = Predictor(TinyNet(), LABELS, device="cpu", scales=(1.0, scale), flip=True)
    for height in range(1, 8):
        for width in (1, 2, 5, 8):
            assert predictor.mask(picture(height, width)).shape == (height, width)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 3))
def test_resized_has_the_defined_size(height, width, scale):
    x = torch.zeros(1, 3, height, width)
    assert resized(x, scale).shape[-2:] == (
        max(1, math.floor(scale * height + 0.5)),
        max(1, math.floor(scale * width + 0.5)),
    )


def test_a_probability_of_zero_leaves_scores_finite():
    class Sure(RedNet):
        def forward(self, images, size=None, **options):
            return super().forward(images, size, **options) * 1000

    scores = Predictor(Sure(), LABELS, device="cpu", flip=True).scores(picture(5, 5))
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize(("classes", "dtype"), [(3, np.uint8), (256, np.uint8), (257, np.uint16), (300, np.uint16)])
def test_mask_type_holds_every_class(classes, dtype):
    scores = torch.zeros(classes, 2, 2)
    scores[classes - 1] = 1
    mask = to_mask(scores)
    assert mask.dtype == dtype
    assert (mask == classes - 1).all()


def test_equal_scores_give_the_lower_class():
    assert (to_mask(torch.zeros(5, 3, 3)) == 0).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_an_error(value):
    scores = torch.zeros(3, 4, 4)
    scores[1, 2, 3] = value
    with pytest.raises(NotFiniteError):
        to_mask(scores)


def test_each_module_returns_to_its_mode():
    model = TinyNet().train()
    model.norm.eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert model.training
    assert model.conv.training
    assert not model.norm.training


def test_prediction_inside_training_changes_no_statistics_and_leaves_gradients_alone():
    model = TinyNet().train()
    before = model.norm.running_mean.clone()
    Predictor(model, LABELS, device="cpu").mask(picture(16, 16))
    assert torch.equal(model.norm.running_mean, before)
    assert model.training
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    assert model.conv.weight.grad is not None


def test_the_order_in_memory_of_the_weights_changes_rounding_alone():
    image = picture(40, 56)
    one = Predictor(TinyNet(), LABELS, device="cpu").scores(image)
    other = Predictor(TinyNet().to(memory_format=torch.channels_last), LABELS, device="cpu").scores(image)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_bf16_is_close_and_returns_float32():
    image = picture(40, 56)
    scores = Predictor(TinyNet(), LABELS, device="cpu", precision="bf16").scores(image)
    exact = Predictor(TinyNet(), LABELS, device="cpu").scores(image)
    assert scores.dtype == torch.float32
    assert 0 < (scores - exact).abs().max() < 0.2


def test_paths_pil_images_arrays_and_lists(tmp_path):
    image = picture(9, 12)
    path = tmp_path / "street.png"
    Image.fromarray(image).save(path)
    predictor = Predictor(RedNet(), LABELS, device="cpu")
    expected = np.minimum(image[:, :, 0] // 85, 2)
    results = predictor([path, str(path), Image.fromarray(image), image, image[:, ::-1], Image.fromarray(image[:, :, 0])])
    assert [result.name for result in results] == ["street", "street", "image-3", "image-4", "image-5", "image-6"]
    for result in results[:4] + results[5:]:
        assert np.array_equal(result.mask, expected)
    assert np.array_equal(results[4].mask, expected[:, ::-1])
    assert predictor(path).name == "street"
    assert np.array_equal(predictor(np.ascontiguousarray(image[:, :, 0])).mask, expected)


def test_a_pil_image_that_cannot_be_decoded_is_bad_data(tmp_path):
    Image.fromarray(picture(64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    with Image.open(tmp_path / "cut.png") as image, pytest.raises(DataError, match="cannot be decoded"):
        Predictor(RedNet(), LABELS, device="cpu")(image)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(DataError, match="expected uint8"):
        Predictor(RedNet(), LABELS, device="cpu")(array)


@pytest.mark.parametrize(
    "keywords",
    [
        {"precision": "fp8"},
        {"scales": ()},
        {"scales": (0,)},
        {"scales": (math.nan,)},
        {"device": "tpu"},
        {"device": "cuda:99"},
    ],
)
def test_settings_that_make_no_sense_are_refused(keywords):
    with pytest.raises(UsageError):
        Predictor(RedNet(), LABELS, **{"device": "cpu", **keywords})


def test_more_than_256_classes():
    labels = LabelSet("many", tuple(map(str, range(300))), voc_colours(300), ignore=65535)
    mask = Predictor(TinyNet(300), labels, device="cpu").mask(picture(8, 8))
    assert mask.dtype == np.uint16


def test_features_are_those_of_the_scored_pass():
    from seenet.data.shapes import SHAPES
    from seenet.model import create_model

    model, image = create_model(backbone="resnet10t", num_classes=6, width=8, p_out=16), picture(45, 61)
    predictor = Predictor(model, SHAPES, device="cpu")
    features = predictor.features(image)
    torch.testing.assert_close(features["logits"][0], predictor.scores(image), rtol=1e-5, atol=1e-5)
    assert {"B1", "B2", "B3", "B4", "P2", "P3", "P4", "P_out", "attention"} <= set(features)
    with pytest.raises(UsageError, match="shows nothing but its scores"):
        Predictor(TinyNet(), LABELS, device="cpu").features(image)
    with pytest.raises(DataError, match="expected uint8"):
        predictor.features(image.astype(np.float32))
