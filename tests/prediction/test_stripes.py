"""Stripes are the rows of the whole, whatever their height, and the whole is what torch's own resize gives."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seenet.core.errors import NotFiniteError
from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.prediction import stripes
from seenet.prediction.predictor import Predictor
from seenet.prediction.scores import joined, to_mask
from seenet.prediction.stripes import Grid, averaged_stripes, raw_stripes

SIDE = st.integers(1, 40)


def grid_of(seed: int, images: int, classes: int, height: int, width: int, *, ties: bool = False) -> torch.Tensor:
    scores = torch.randn(images, classes, height, width, generator=torch.Generator().manual_seed(seed)) * 5
    return scores.round() if ties else scores


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.integers(1, 7), SIDE, SIDE, SIDE, SIDE, st.integers(0, 5), st.booleans())
def test_rows_are_those_of_torchs_resize(
    seed: int, classes: int, height: int, width: int, full_height: int, full_width: int, cut: int, last: bool
) -> None:
    scores = grid_of(seed, 2, classes, height, width)
    if last:
        scores = scores.contiguous(memory_format=torch.channels_last)
    h, w = max(1, full_height - cut), max(1, full_width - cut)
    grid = Grid(scores, (full_height, full_width))
    expected = F.interpolate(scores, (full_height, full_width), mode="bilinear", align_corners=False)[..., :h, :w]
    whole = grid.rows(0, h, w)
    torch.testing.assert_close(whole, expected, rtol=1e-6, atol=2e-5)
    for top, bottom in ((0, 1), (h - 1, h), (h // 2, h)):
        assert torch.equal(grid.rows(top, bottom, w), whole[:, :, top:bottom])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.integers(2, 300), SIDE, SIDE, SIDE, SIDE, st.booleans(), st.integers(1, 20000))
def test_the_mask_by_stripes_is_the_argmax_of_the_whole(
    seed: int, classes: int, height: int, width: int, h: int, w: int, ties: bool, numbers: int
) -> None:
    grid = Grid(grid_of(seed, 1, classes, height, width, ties=ties), (h, w))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stripes, "LEAST_ROWS", 1)
        patch.setattr(stripes, "STRIPE", {"cpu": numbers})
        parts = [to_mask(stripe) for stripe in raw_stripes(grid, (h, w))]
        whole = joined(raw_stripes(grid, (h, w)), h)
    assert len(parts) == math.ceil(h / max(1, numbers // (classes * w)))
    assert torch.equal(torch.as_tensor(whole), grid.rows(0, h, w)[0])
    assert np.array_equal(np.concatenate(parts), to_mask(whole))
    if classes < 20 and not ties:
        # Where two classes are within rounding, torch's own resize may prefer the other.
        expected = F.interpolate(grid.scores, (h, w), mode="bilinear", align_corners=False)[0]
        best = expected.topk(2, 0).values
        sure = (best[0] - best[1] > 1e-4).numpy()
        assert np.array_equal(np.concatenate(parts)[sure], expected.argmax(0).numpy()[sure])


def test_the_mean_against_float64() -> None:
    size = (70, 51)
    scores = [grid_of(seed, 2, 5, height, width) for seed, (height, width) in enumerate([(9, 7), (18, 13), (35, 26)])]
    found = joined(averaged_stripes([Grid(one, size) for one in scores], size), size[0])
    kept = []
    for one in scores:
        whole = F.interpolate(one.double(), size, mode="bilinear", align_corners=False).softmax(1)
        kept += [whole[0], whole[1].flip(-1)]
    torch.testing.assert_close(torch.as_tensor(found).double().exp(), torch.stack(kept).mean(0), rtol=1e-4, atol=5e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_number_that_is_not_finite_is_told(value: float) -> None:
    scores = torch.zeros(1, 3, 20, 20)
    scores[0, 1, 19, 3] = value
    with pytest.raises(NotFiniteError):
        [to_mask(stripe) for stripe in raw_stripes(Grid(scores, (400, 500)), (400, 500))]


@pytest.mark.parametrize("variant", ["seenet", "smp-deeplabv3plus"])
@pytest.mark.parametrize("size", [None, (50, 81)])
def test_a_network_that_pads_its_pictures(variant: str, size: tuple[int, int] | None) -> None:
    if variant.startswith("smp"):
        pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    model = create_model(variant, backbone="resnet10t", num_classes=6, **({"width": 8, "p_out": 16} if variant == "seenet" else {})).eval()
    predictor = Predictor(model, SHAPES, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    with torch.inference_mode():
        expected = model(predictor._normalized(image), size=size)[0]
    torch.testing.assert_close(predictor.scores(image, size), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert np.array_equal(predictor.mask(image, size), to_mask(predictor.scores(image, size)))


def test_a_thousand_classes_are_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    rows = Grid.rows

    def noted(self: Grid, top: int, bottom: int, width: int) -> torch.Tensor:
        seen.append(bottom - top)
        return rows(self, top, bottom, width)

    monkeypatch.setattr(Grid, "rows", noted)
    grid = Grid(grid_of(0, 1, 1000, 8, 8), (100, 90))
    assert joined(raw_stripes(grid, (100, 90)), 100).shape == (1000, 100, 90)
    assert seen == [8] * 12 + [4]
