"""Tiles and rows give the whole picture's scores, and a pass takes the memory that is said."""

import copy
import logging
import math
from concurrent.futures import ThreadPoolExecutor
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
from seenet.core.errors import NotFiniteError, UsageError
from seenet.data.shapes import SHAPES
from seenet.model import Segmenter, create_model
from seenet.model.fast import use_fast
from seenet.model.receptive_field import receptive_field
from seenet.prediction import tiled
from seenet.prediction.base import tile_done
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


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(
        0, 256, (height, width, 3), np.uint8
    )


def near(variant: str = "seenet", backbone: str = "resnet10t", **options: Any) -> Segmenter:
    """A network of small reach, so that tiles are small too: every rate 1, local convolutions 3 x 3 at most."""
    torch.manual_seed(1)
    model = create_model(variant, backbone=backbone, num_classes=6, width=8, p_out=16, **options)
    for module in model.modules():
        if (
            isinstance(module, nn.Conv2d)
            and not isinstance(module.padding, str)
            and all(side % 2 for side in module.kernel_size)
        ):
            size = tuple(min(side, 3) for side in module.kernel_size)
            with torch.no_grad():
                module.weight = nn.Parameter(module.weight[..., : size[0], : size[1]].contiguous())
            if max(module.dilation) > 1 or size != module.kernel_size:
                module.dilation, module.kernel_size, module.padding = (
                    (1, 1),
                    size,
                    tuple(side // 2 for side in size),
                )
        elif isinstance(module, nn.BatchNorm2d):
            # Statistics and scales as of a trained network, where nothing is zero.
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
    return model.eval()


def compare(model: Segmenter, image: np.ndarray, tile: int, margin: int, **options: Any) -> float:
    """Largest difference of scores."""
    whole = Predictor(model, SHAPES, device="cpu", **options).scores(image)
    tiles = Predictor(model, SHAPES, device="cpu", tiling=Tiling(tile, margin), **options).scores(
        image
    )
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


@pytest.mark.parametrize(
    "name",
    [
        name if name == "attention" else pytest.param(name, marks=pytest.mark.slow)
        for name in NETWORKS
    ],
)
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
    model, margin = built(name)
    tile = Tiling("auto", margin + wider).least + more
    assert compare(model, noise(tile + above, tile + beside), tile, margin + wider) < 1e-4


@pytest.mark.parametrize(
    ("scales", "flip"), [((1.0,), True), pytest.param((0.6, 1.3), True, marks=pytest.mark.slow)]
)
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
    torch.testing.assert_close(
        found,
        expected[..., rows.begin : rows.end, columns.begin : columns.end],
        rtol=1e-4,
        atol=1e-2,
    )


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


@pytest.mark.parametrize(
    "wrong", [{"margin": -1}, {"memory": 0}, {"memory": math.nan}, {"tile": 500}, {"tile": "some"}]
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Tiling(**wrong)


@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((0.5, 1.0), True)])
def test_tiles_are_counted_as_they_are_seen(scales: tuple[float, ...], flip: bool) -> None:
    model, margin = built("attention")
    tile = Tiling("auto", margin).least
    predictor = Predictor(
        model, SHAPES, device="cpu", scales=scales, flip=flip, tiling=Tiling(tile, margin)
    )
    size, done = (tile + 30, 2 * tile), 0

    def another() -> None:
        nonlocal done
        done += 1

    before = tile_done.set(another)
    predictor.mask(noise(*size))
    tile_done.reset(before)
    assert done == predictor.tiles(size) > len(scales)
    assert predictor.tiles((20, 30)) == 1


def test_a_bar_of_tiles_stands_where_there_are_several(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    model, margin = built("attention")
    tile = Tiling("auto", margin).least
    predictor = Predictor(model, SHAPES, device="cpu", tiling=Tiling(tile, margin))
    for size in ((64, 64), (64, 2 * tile)):
        with predictor.tile_bar(size, f"{size[1]}.png"):
            predictor.mask(noise(*size))
    count = predictor.tiles((64, 2 * tile))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"tiles of {2 * tile}.png: {done}/{count}" for done in range(1, count + 1)
    ]
    assert count > 1
    # Afterwards tiles are nobody's.
    predictor.mask(noise(64, 2 * tile))
    assert capsys.readouterr().err == ""


SIDE = st.integers(1, 40)


def grid_of(
    seed: int, images: int, classes: int, height: int, width: int, *, ties: bool = False
) -> torch.Tensor:
    scores = (
        torch.randn(images, classes, height, width, generator=torch.Generator().manual_seed(seed))
        * 5
    )
    return scores.round() if ties else scores


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 99), st.integers(1, 7), SIDE, SIDE, SIDE, SIDE, st.integers(0, 5), st.booleans()
)
def test_rows_are_those_of_torchs_resize(
    seed: int,
    classes: int,
    height: int,
    width: int,
    full_height: int,
    full_width: int,
    cut: int,
    last: bool,
) -> None:
    scores = grid_of(seed, 2, classes, height, width)
    if last:
        scores = scores.contiguous(memory_format=torch.channels_last)
    h, w = max(1, full_height - cut), max(1, full_width - cut)
    grid = Grid(scores, (full_height, full_width))
    expected = F.interpolate(
        scores, (full_height, full_width), mode="bilinear", align_corners=False
    )[..., :h, :w]
    whole = grid.rows(0, h, w)
    torch.testing.assert_close(whole, expected, rtol=1e-6, atol=2e-5)
    for top, bottom in ((0, 1), (h - 1, h), (h // 2, h)):
        assert torch.equal(grid.rows(top, bottom, w), whole[:, :, top:bottom])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 99),
    st.integers(2, 300),
    SIDE,
    SIDE,
    SIDE,
    SIDE,
    st.booleans(),
    st.integers(1, 20000),
)
def test_the_mask_by_stripes_is_the_argmax_of_the_whole(
    seed: int, classes: int, height: int, width: int, h: int, w: int, ties: bool, numbers: int
) -> None:
    grid = Grid(grid_of(seed, 1, classes, height, width, ties=ties), (h, w))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled, "LEAST_ROWS", 1)
        patch.setattr(tiled, "CHUNK", {"cpu": numbers})
        parts = [to_mask(chunk) for chunk in raw_row_chunks(grid, (h, w))]
        whole = stack_chunks(raw_row_chunks(grid, (h, w)), h)
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
    scores = [
        grid_of(seed, 2, 5, height, width)
        for seed, (height, width) in enumerate([(9, 7), (18, 13), (35, 26)])
    ]
    found = stack_chunks(averaged_row_chunks([Grid(one, size) for one in scores], size), size[0])
    kept = []
    for one in scores:
        whole = F.interpolate(one.double(), size, mode="bilinear", align_corners=False).softmax(1)
        kept += [whole[0], whole[1].flip(-1)]
    torch.testing.assert_close(
        torch.as_tensor(found).double().exp(), torch.stack(kept).mean(0), rtol=1e-4, atol=5e-6
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_number_that_is_not_finite_is_told(value: float) -> None:
    scores = torch.zeros(1, 3, 20, 20)
    scores[0, 1, 19, 3] = value
    with pytest.raises(NotFiniteError):
        [to_mask(chunk) for chunk in raw_row_chunks(Grid(scores, (400, 500)), (400, 500))]


@pytest.mark.parametrize("variant", ["seenet", "smp-deeplabv3plus"])
@pytest.mark.parametrize("size", [None, (50, 81)])
def test_a_network_that_pads_its_pictures(variant: str, size: tuple[int, int] | None) -> None:
    if variant.startswith("smp"):
        pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    model = create_model(
        variant,
        backbone="resnet10t",
        num_classes=6,
        **({"width": 8, "p_out": 16} if variant == "seenet" else {}),
    ).eval()
    predictor = Predictor(model, SHAPES, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    with torch.inference_mode():
        expected = model(predictor._normalized(image), size=size)[0]
    torch.testing.assert_close(
        predictor.scores(image, size), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    )
    assert np.array_equal(predictor.mask(image, size), to_mask(predictor.scores(image, size)))


def test_a_thousand_classes_are_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    rows = Grid.rows

    def noted(self: Grid, top: int, bottom: int, width: int) -> torch.Tensor:
        seen.append(bottom - top)
        return rows(self, top, bottom, width)

    monkeypatch.setattr(Grid, "rows", noted)
    grid = Grid(grid_of(0, 1, 1000, 8, 8), (100, 90))
    assert stack_chunks(raw_row_chunks(grid, (100, 90)), 100).shape == (1000, 100, 90)
    assert seen == [8] * 12 + [4]


class Net(nn.Module):
    """Layers one after the other; called as every network here."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor, *, own_grid: bool) -> Tensor:
        scores: Tensor = self.layers(images)
        return scores


class Asks(nn.Module):
    """Needs a number, which torch's meta device has none of."""

    def forward(self, images: Tensor, **_: Any) -> Tensor:
        return images * images.mean().item()


WIDE = nn.Conv2d(3, 8, 1, bias=False)


@pytest.mark.parametrize(
    ("layers", "floats"),
    [
        ([WIDE], 3 + 8),
        # The picture is its caller's, and lives as long as the pass; what the first layer gave goes when the second is done.
        ([WIDE, nn.Conv2d(8, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False)], 3 + 8 + 2),
        ([WIDE, nn.ReLU(inplace=True)], 3 + 8),
        ([WIDE, nn.ReLU()], 3 + 8 + 8),
        ([nn.Conv2d(3, 16, 8, 8)], 3 + 16 / 64),
    ],
)
def test_the_tensors_that_live_at_once(layers: list[nn.Module], floats: float) -> None:
    assert pass_bytes(Net(*layers), 3) == pytest.approx(4 * floats * OVERHEAD)


def test_a_network_that_needs_numbers_gets_a_guess() -> None:
    assert pass_bytes(Asks(), 3) == UNKNOWN_BYTES


def test_the_network_stays_as_it_is() -> None:
    model = create_model("seenet", backbone="mobilenetv3_small_050", num_classes=6).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert pass_bytes(model, 3) > 4 * 3 * OVERHEAD
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_each_thread_counts_its_own_tiles(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    model, margin = built("attention")
    tile = Tiling("auto", margin).least
    predictor = Predictor(model, SHAPES, device="cpu", tiling=Tiling(tile, margin))
    both, sizes = Barrier(2), [(64, 2 * tile), (64, 3 * tile)]

    def work(size: tuple[int, int]) -> None:
        with predictor.tile_bar(size, f"{size[1]}.png"):
            both.wait(60)
            predictor.mask(noise(*size))
            both.wait(60)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, sizes))
    counts = {f"tiles of {size[1]}.png": predictor.tiles(size) for size in sizes}
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split(",")[0] for line in lines) == sorted(
        f"{name}: {done}/{count}" for name, count in counts.items() for done in range(1, count + 1)
    )
