"""Tiles and rows give the whole picture's scores, and a pass takes the memory that is estimated."""

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.core import progress
from seenet.core.errors import UsageError
from seenet.data.shapes import SHAPES
from seenet.model import Segmenter, create_model
from seenet.model.receptive_field import receptive_field
from seenet.prediction import tiled
from seenet.prediction.predictor import Predictor, resized
from seenet.prediction.result import stack_chunks, to_mask
from seenet.prediction.tiled import (
    OVERHEAD,
    UNKNOWN_BYTES,
    Grid,
    averaged_row_chunks,
    pass_bytes,
    raw_row_chunks,
    scaled_part,
)
from seenet.prediction.tiles import STEP, Span, Tiling
from tests.prediction.doubles import picture


def small_field(variant: str, backbone: str, **options: Any) -> Segmenter:
    """A network of a small receptive field, so that tiles are small too: every rate is 1, local
    convolutions are at most 3 x 3.
    """
    torch.manual_seed(1)
    model = create_model(variant, backbone=backbone, num_classes=6, width=8, p_out=16, **options)
    for module in model.modules():
        if (
            isinstance(module, nn.Conv2d)
            and not isinstance(module.padding, str)
            and all(side % 2 for side in module.kernel_size)
        ):
            size = tuple(min(side, 3) for side in module.kernel_size)
            weight = module.weight.detach()[..., : size[0], : size[1]].contiguous()
            module.weight = nn.Parameter(weight)
            if max(module.dilation) > 1 or size != module.kernel_size:
                module.dilation, module.kernel_size = (1, 1), size
                module.padding = tuple(side // 2 for side in size)
        elif isinstance(module, nn.BatchNorm2d):
            # Scales as of a trained network, where none is zero.
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model.eval()


NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "attention": ("seenet", "resnet10t", {}),
    "stride 16": ("seenet", "resnet10t", {"output_stride": 16}),
    "stride 32, met at 8": ("pfp-mixed-bf", "resnet10t", {"output_stride": 32, "refine_stride": 8}),
    "padding on one side": ("seenet", "tf_efficientnet_lite0", {"output_stride": 16}),
    "padded to 32": ("pfp-mixed-bf", "convnext_atto", {}),
    "no refinement": ("pfp", "resnet10t", {"output_stride": 16}),
    "peer": ("torchvision-fcn", "resnet10t", {"output_stride": 32}),
}


@cache
def built(name: str) -> tuple[Segmenter, int, int]:
    """The network, the margin that it needs (its radius, and a point of its coarsest grid for sides
    that do not divide), and the smallest tile.
    """
    variant, backbone, options = NETWORKS[name]
    model = small_field(variant, backbone, **options)
    margin = int(receptive_field(model).radius) + STEP
    return model, margin, Tiling("auto", margin).smallest


def difference(
    model: Segmenter,
    size: tuple[int, int],
    tile: int,
    margin: int,
    out: tuple[int, int] | None = None,
    **options: Any,
) -> float:
    """Largest difference of scores between tiles and the whole picture, relative to the largest."""
    whole, tiles = (
        Predictor(model, SHAPES, device="cpu", tiling=tiling, **options).scores(picture(*size), out)
        for tiling in (None, Tiling(tile, margin))
    )
    assert whole.shape == tiles.shape == (6, *(out or size))
    return float((whole - tiles).abs().max() / whole.abs().max().clamp_min(1))


@pytest.mark.parametrize(
    "name", ["attention", *(pytest.param(name, marks=pytest.mark.slow) for name in [*NETWORKS][1:])]
)
def test_tiles_equal_the_whole(name: str) -> None:
    model, margin, smallest = built(name)
    tile = smallest + 96
    assert difference(model, (tile + 77, tile // 2 + 31), tile, margin) < 1e-4
    assert difference(model, (33, tile + 131), tile, margin) < 1e-4


@pytest.mark.slow
@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(NETWORKS)),
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(0, 90),
    st.integers(0, 40),
)
def test_tiles_of_any_size_equal_the_whole(
    name: str, above: int, beside: int, more: int, wider: int
) -> None:
    model, margin, _ = built(name)
    tile = Tiling("auto", margin + wider).smallest + more
    assert difference(model, (tile + above, tile + beside), tile, margin + wider) < 1e-4


@pytest.mark.parametrize(
    "scales", [(1.0,), pytest.param((0.6, 1.3), marks=pytest.mark.slow)], ids=str
)
def test_scales_and_mirrors_are_cut_too(scales: tuple[float, ...]) -> None:
    model, margin, smallest = built("stride 16")
    size, tile = (70, smallest + 195), smallest + 96
    assert difference(model, size, tile, margin, scales=scales, flip=True) < 1e-4


def test_scores_at_another_size_and_without_a_margin() -> None:
    model, margin, tile = built("attention")
    assert difference(model, (65, tile + 50), tile, margin, out=(51, 397)) < 1e-4
    assert difference(model, (64, 200), 96, 0) > 1e-2


def test_the_mask_is_the_argmax_of_the_scores() -> None:
    model, margin, smallest = built("attention")
    image = picture(smallest + 60, 90)
    predictor = Predictor(model, SHAPES, device="cpu", tiling=Tiling("auto", margin, memory=1e-6))
    assert np.array_equal(predictor.mask(image), np.asarray(predictor.scores(image)).argmax(0))


@pytest.mark.parametrize("scale", [0.2, 0.5, 0.77, 1.0, 1.6])
def test_a_part_is_resized_as_the_whole(scale: float) -> None:
    image = picture(301, 217)

    def floats(part: np.ndarray) -> Tensor:
        return torch.from_numpy(part).permute(2, 0, 1)[None].float()

    expected = resized(floats(image), scale)
    height, width = expected.shape[-2:]
    rows, columns = Span(0, 0, height // 3, height - 5), Span(0, 0, 3, width)
    part = scaled_part(image, (height, width), rows, columns, floats)
    expected = expected[..., rows.begin : rows.end, columns.begin : columns.end]
    torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-2)


def test_a_network_that_looks_everywhere_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    model = create_model("pfp", backbone="mobilenetv3_small_050", num_classes=6).eval()
    predictor = Predictor(model, SHAPES, device="cpu", tiling=Tiling(128, 32))
    with caplog.at_level(logging.WARNING, "seenet"):
        for width in (64, 140, 150):
            predictor.mask(picture(64, width))
    assert sum("--tile whole" in message for message in caplog.messages) == 1


@pytest.mark.parametrize(
    ("tiling", "expected"),
    [
        (None, {}),
        (Tiling(), {}),
        (Tiling(640, 100), {"tile": 640, "margin": 100}),
        (Tiling("auto"), {"tile": "auto", "margin": 256, "memory": 2.0}),
    ],
)
def test_settings_name_what_changes_scores(tiling: Tiling | None, expected: dict[str, Any]) -> None:
    plain = {"scales": [1.0], "flip": False, "precision": "fp32"}
    predictor = Predictor(built("attention")[0], SHAPES, device="cpu", tiling=tiling)
    assert predictor.settings == plain | expected


def test_networks_of_odd_strides_are_refused() -> None:
    model = small_field("pfp", "resnet10t")
    model.head = nn.Sequential(model.head, nn.AvgPool2d(3, ceil_mode=True))
    with pytest.raises(UsageError, match="use --tile whole"):
        Predictor(model, SHAPES, device="cpu", tiling=Tiling(128, 32)).mask(picture(200, 64))


@pytest.mark.parametrize(
    "wrong", [{"margin": -1}, {"memory": 0}, {"memory": math.nan}, {"tile": 500}, {"tile": "some"}]
)
def test_tilings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Tiling(**wrong)


@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((0.5, 1.0), True)])
def test_each_thread_shows_the_tiles_of_its_own_picture(
    scales: tuple[float, ...],
    flip: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    model, margin, tile = built("attention")
    predictor = Predictor(
        model, SHAPES, device="cpu", scales=scales, flip=flip, tiling=Tiling(tile, margin)
    )
    sizes, barrier = [(20, 30), (64, 2 * tile), (64, 3 * tile)], Barrier(3)

    def work(size: tuple[int, int]) -> None:
        with predictor.tile_bar(size, f"{size[1]}.png"):
            barrier.wait(60)
            predictor.mask(picture(*size))
            barrier.wait(60)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, sizes))
    lines = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert predictor.tiles(sizes[0]) == 1 < len(scales) + 1 < predictor.tiles(sizes[1])
    assert sorted(lines) == sorted(
        f"tiles of {size[1]}.png: {done}/{predictor.tiles(size)}"
        for size in sizes[1:]
        for done in range(1, predictor.tiles(size) + 1)
    )


SIDE = st.integers(1, 40)


def grid_of(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 5


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    classes=st.one_of(st.integers(1, 7), st.integers(2, 300)),
    shape=st.tuples(SIDE, SIDE),
    full=st.tuples(SIDE, SIDE),
    cut=st.integers(0, 5),
    last=st.booleans(),
    ties=st.booleans(),
    numbers=st.integers(1, 20000),
)
def test_rows_and_chunks_are_those_of_torchs_resize(
    seed: int,
    classes: int,
    shape: tuple[int, int],
    full: tuple[int, int],
    cut: int,
    last: bool,
    ties: bool,
    numbers: int,
) -> None:
    scores = grid_of(seed, 2, classes, *shape)
    scores = scores.round() if ties else scores
    if last:
        scores = scores.contiguous(memory_format=torch.channels_last)
    (h, w), grid = (max(1, side - cut) for side in full), Grid(scores, full)
    expected = F.interpolate(scores, full, mode="bilinear", align_corners=False)[..., :h, :w]
    whole = grid.rows(0, h, w)
    torch.testing.assert_close(whole, expected, rtol=1e-6, atol=2e-5)
    for top, bottom in ((0, 1), (h - 1, h), (h // 2, h)):
        assert torch.equal(grid.rows(top, bottom, w), whole[:, :, top:bottom])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled, "MIN_CHUNK_ROWS", 1)
        patch.setattr(tiled, "CHUNK", {"cpu": numbers})
        chunks = list(raw_row_chunks(grid, (h, w)))
    assert len(chunks) == math.ceil(h / max(1, numbers // (classes * w)))
    assert torch.equal(torch.as_tensor(stack_chunks(chunks, h)), whole[0])
    assert np.array_equal(np.concatenate([*map(to_mask, chunks)]), to_mask(whole[0]))


def test_the_mean_probability_against_float64() -> None:
    size, shapes = (70, 51), [(9, 7), (18, 13), (35, 26)]
    scores = [grid_of(seed, 2, 5, *shape) for seed, shape in enumerate(shapes)]
    chunks = averaged_row_chunks([Grid(one, size) for one in scores], size)
    mean = torch.as_tensor(stack_chunks(chunks, size[0])).double().exp()
    kept = []
    for one in scores:
        whole = F.interpolate(one.double(), size, mode="bilinear", align_corners=False).softmax(1)
        kept += [whole[0], whole[1].flip(-1)]
    torch.testing.assert_close(mean, torch.stack(kept).mean(0), rtol=1e-4, atol=5e-6)


def test_a_thousand_classes_come_in_few_rows() -> None:
    chunks = raw_row_chunks(Grid(grid_of(0, 1, 1000, 8, 8), (100, 90)), (100, 90))
    assert [chunk.shape[1] for chunk in chunks] == [8] * 12 + [4]


@pytest.mark.parametrize("size", [None, (50, 81)])
def test_a_network_that_pads_its_pictures(size: tuple[int, int] | None) -> None:
    model, image = built("padded to 32")[0], picture(37, 53)
    predictor = Predictor(model, SHAPES, device="cpu")
    with torch.inference_mode():
        expected = model(predictor._normalized(image), size=size)[0]
    tolerance = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(predictor.scores(image, size), expected, rtol=1e-4, atol=tolerance)


class Net(nn.Sequential):
    """Layers one after the other, called as every network here."""

    def forward(self, images: Tensor, *, own_grid: bool) -> Tensor:
        return super().forward(images)


class ReadsValues(nn.Module):
    """Layer that reads a value, which torch's meta device has none of."""

    def forward(self, images: Tensor) -> Tensor:
        return images * images.mean().item()


WIDE = nn.Conv2d(3, 8, 1, bias=False)


@pytest.mark.parametrize(
    ("layers", "floats"),
    [
        ([WIDE], 3 + 8),
        # The picture lives as long as the pass; the first layer's output until the second is done.
        ([WIDE, nn.Conv2d(8, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False)], 3 + 8 + 2),
        ([WIDE, nn.ReLU(inplace=True)], 3 + 8),
        ([WIDE, nn.ReLU()], 3 + 8 + 8),
        ([nn.Conv2d(3, 16, 8, 8)], 3 + 16 / 64),
        ([ReadsValues()], UNKNOWN_BYTES / 4 / OVERHEAD),
    ],
)
def test_the_estimate_counts_the_tensors_that_live_at_once(
    layers: list[nn.Module], floats: float
) -> None:
    assert pass_bytes(Net(*layers), 3) == pytest.approx(4 * floats * OVERHEAD)
