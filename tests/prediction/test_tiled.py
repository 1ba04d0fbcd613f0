"""Tiles with a margin of the receptive radius give the whole picture's scores."""

import copy
import logging
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seenet.core import progress
from seenet.core.errors import UsageError
from seenet.data.shapes import SHAPES
from seenet.model import Segmenter, create_model
from seenet.model.fast import use_fast
from seenet.model.summary import receptive_field
from seenet.prediction.predictor import Predictor, resized
from seenet.prediction.tiled import scaled_part
from seenet.prediction.tiles import STEP, Span, Tiling


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def near(variant: str = "seenet", backbone: str = "resnet10t", **options: Any) -> Segmenter:
    """A network of small reach, so that tiles are small too: every rate 1, local convolutions 3 x 3 at most."""
    torch.manual_seed(1)
    model = create_model(variant, backbone=backbone, num_classes=6, width=8, p_out=16, **options)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module.padding, str) and all(side % 2 for side in module.kernel_size):
            size = tuple(min(side, 3) for side in module.kernel_size)
            with torch.no_grad():
                module.weight = nn.Parameter(module.weight[..., : size[0], : size[1]].contiguous())
            if max(module.dilation) > 1 or size != module.kernel_size:
                module.dilation, module.kernel_size, module.padding = (1, 1), size, tuple(side // 2 for side in size)
        elif isinstance(module, nn.BatchNorm2d):
            # Statistics and scales as of a trained network, where nothing is zero.
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
    return model.eval()


def compare(model: Segmenter, image: np.ndarray, tile: int, margin: int, **options: Any) -> float:
    """Largest difference of scores."""
    whole = Predictor(model, SHAPES, device="cpu", **options).scores(image)
    tiles = Predictor(model, SHAPES, device="cpu", tiling=Tiling(tile, margin), **options).scores(image)
    assert whole.shape == tiles.shape
    assert isinstance(whole, Tensor) and isinstance(tiles, Tensor)
    return float((whole - tiles).abs().max() / whole.abs().max().clamp_min(1))


NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "attention": ("seenet", "resnet10t", {}),
    "stride 16": ("seenet", "resnet10t", {"output_stride": 16}),
    "stride 32, met at 8": ("pfp-mixed-bf", "resnet10t", {"output_stride": 32, "refine_stride": 8}),
    "padding on one side": ("seenet", "tf_efficientnet_lite0", {"output_stride": 16}),
    "padded to 32": ("pfp-mixed-bf", "convnext_atto", {}),
    "no refinement": ("pfp", "resnet10t", {"output_stride": 16}),
    "peer": ("torchvision-fcn", "resnet10t", {"output_stride": 32}),
}
BUILT: dict[str, tuple[Segmenter, int]] = {}


def built(name: str) -> tuple[Segmenter, int]:
    """The network and the margin that it needs: its radius, and a point of its coarsest grid for sides that do not divide."""
    if name not in BUILT:
        variant, backbone, options = NETWORKS[name]
        model = near(variant, backbone, **options)
        BUILT[name] = model, int(receptive_field(model).radius) + STEP
    return BUILT[name]


@pytest.mark.parametrize("name", [name if name == "attention" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS])
def test_tiles_equal_the_whole(name: str) -> None:
    model, margin = built(name)
    tile = Tiling("auto", margin).least + 96
    assert compare(model, noise(tile + 77, tile // 2 + 31), tile, margin) < 1e-4
    assert compare(model, noise(33, tile + 131), tile, margin) < 1e-4


@pytest.mark.slow
def test_the_faster_form_is_cut_alike() -> None:
    model, margin = built("attention")
    fast = copy.deepcopy(model)
    use_fast(fast)
    tile = Tiling("auto", margin).least + 96
    assert compare(fast, noise(33, tile + 131), tile, margin) < 1e-4


@pytest.mark.slow
@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(NETWORKS)), st.integers(0, 300), st.integers(0, 300), st.integers(0, 90), st.integers(0, 40))
def test_tiles_of_any_size_equal_the_whole(name: str, above: int, beside: int, more: int, wider: int) -> None:
    model, margin = built(name)
    tile = Tiling("auto", margin + wider).least + more
    assert compare(model, noise(tile + above, tile + beside), tile, margin + wider) < 1e-4


@pytest.mark.parametrize(("scales", "flip"), [((1.0,), True), pytest.param((0.6, 1.3), True, marks=pytest.mark.slow)])
def test_scales_and_mirrors_are_cut_too(scales: tuple[float, ...], flip: bool) -> None:
    model, margin = built("stride 16")
    tile = Tiling("auto", margin).least + 96
    assert compare(model, noise(70, tile + 99), tile, margin, scales=scales, flip=flip) < 1e-4


def test_scores_at_another_size() -> None:
    model, margin = built("attention")
    tile = Tiling("auto", margin).least
    image, size = noise(65, tile + 50), (51, 397)
    whole = Predictor(model, SHAPES, device="cpu").scores(image, size)
    tiles = Predictor(model, SHAPES, device="cpu", tiling=Tiling(tile, margin)).scores(image, size)
    assert tiles.shape == (6, 51, 397)
    torch.testing.assert_close(tiles, whole, rtol=1e-4, atol=1e-4)


def test_without_margin_scores_differ() -> None:
    model, _ = built("attention")
    assert compare(model, noise(64, 200), 96, 0) > 1e-2


def test_masks_and_one_pass_agree() -> None:
    model, margin = built("attention")
    image = noise(Tiling("auto", margin).least + 60, 90)
    predictor = Predictor(model, SHAPES, device="cpu", tiling=Tiling("auto", margin, memory=1e-6))
    assert np.array_equal(predictor.mask(image), np.asarray(predictor.scores(image)).argmax(0))
    result = predictor.result(image, "one")
    assert np.array_equal(result.mask, predictor.mask(image))


@pytest.mark.parametrize("scale", [0.2, 0.5, 0.77, 1.0, 1.6])
def test_a_part_is_resized_as_the_whole(scale: float) -> None:
    image = noise(301, 217)

    def floats(part: np.ndarray) -> Tensor:
        return torch.from_numpy(part).permute(2, 0, 1)[None].float()

    expected = resized(floats(image), scale)
    height, width = expected.shape[-2:]
    rows, columns = Span(0, 0, height // 3, height - 5), Span(0, 0, 3, width)
    found = scaled_part(image, (height, width), rows, columns, floats)
    torch.testing.assert_close(found, expected[..., rows.begin : rows.end, columns.begin : columns.end], rtol=1e-4, atol=1e-2)


def test_what_looks_everywhere_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    model = create_model("pfp", backbone="mobilenetv3_small_050", num_classes=6).eval()
    predictor = Predictor(model, SHAPES, device="cpu", tiling=Tiling(128, 32))
    with caplog.at_level(logging.WARNING, "seenet"):
        caplog.clear()
        predictor.mask(noise(64, 64))
        assert not caplog.messages
        predictor.mask(noise(64, 140))
        predictor.mask(noise(64, 150))
    assert len(caplog.messages) == 1
    assert "mean takes in the whole picture" in caplog.messages[0]


def test_settings_say_how_pictures_are_cut() -> None:
    model, _ = built("attention")

    def told(tiling: Tiling | None) -> dict[str, Any]:
        found = Predictor(model, SHAPES, device="cpu", tiling=tiling).settings
        return {key: found[key] for key in ("tile", "margin", "memory") if key in found}

    assert told(None) == told(Tiling()) == {}
    assert told(Tiling(640, 100)) == {"tile": 640, "margin": 100}
    assert told(Tiling("auto")) == {"tile": "auto", "margin": 256, "memory": 2.0}


def test_networks_of_odd_strides_are_refused() -> None:
    class Third(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[..., ::3, ::3]

    model = near("pfp")
    assert model.head is not None
    model.head = nn.Sequential(model.head, Third())
    with pytest.raises(UsageError, match="use --tile whole"):
        Predictor(model, SHAPES, device="cpu", tiling=Tiling(128, 32)).mask(noise(200, 64))


@pytest.mark.parametrize("wrong", [{"margin": -1}, {"memory": 0}, {"memory": math.nan}, {"tile": 500}, {"tile": "some"}])
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Tiling(**wrong)


@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((0.5, 1.0), True)])
def test_tiles_are_counted_as_they_are_seen(scales: tuple[float, ...], flip: bool) -> None:
    model, margin = built("attention")
    tile = Tiling("auto", margin).least
    predictor = Predictor(model, SHAPES, device="cpu", scales=scales, flip=flip, tiling=Tiling(tile, margin))
    size, done = (tile + 30, 2 * tile), 0

    def another() -> None:
        nonlocal done
        done += 1

    predictor.tile_done = another
    predictor.mask(noise(*size))
    assert done == predictor.tiles(size) > len(scales)
    assert predictor.tiles((20, 30)) == 1


def test_a_bar_of_tiles_stands_where_there_are_several(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    model, margin = built("attention")
    tile = Tiling("auto", margin).least
    predictor = Predictor(model, SHAPES, device="cpu", tiling=Tiling(tile, margin))
    for size in ((64, 64), (64, 2 * tile)):
        with predictor.tile_bar(size, f"{size[1]}.png"):
            predictor.mask(noise(*size))
    count = predictor.tiles((64, 2 * tile))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"tiles of {2 * tile}.png: {done}/{count}" for done in range(1, count + 1)]
    assert count > 1
    # Afterwards tiles are nobody's.
    predictor.mask(noise(64, 2 * tile))
    assert capsys.readouterr().err == ""
