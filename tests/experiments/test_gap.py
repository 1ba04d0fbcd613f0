"""Semantic gap: linear CKA from Gram matrices, and the stages of a network point by point."""

import json
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seenet.core.errors import NotFiniteError
from seenet.core.files import sha256
from seenet.data.shapes import SHAPES, ShapesSplit
from seenet.experiments import gap
from seenet.experiments.gap import Moments, compare, draw_points, linear_cka, pairs_of
from seenet.model import Segmenter, create_model
from seenet.model.files import save_model
from seenet.prediction.predictor import Predictor
from tests.cli.commands import run
from tests.evaluation.doubles import MemorySplit
from tests.model.networks import spread_norms

SIZES = ((48, 64), (41, 50), (64, 33))
RNG = np.random.default_rng(1)
SMALL = {"backbone": "resnet10t", "num_classes": SHAPES.num_classes, "width": 8, "p_out": 16}


def scatter_of(rows: np.ndarray, batches: int) -> torch.Tensor:
    moments = Moments(rows.shape[1])
    for batch in np.array_split(rows, batches):
        moments.add(torch.from_numpy(batch))
    return moments.scatter


def cka_by_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Compute CKA from Gram matrices."""
    h = np.eye(len(x)) - np.ones((len(x), len(x))) / len(x)
    k, m = h @ x @ x.T @ h, h @ y @ y.T @ h
    return float((k * m).sum() / ((k * k).sum() * (m * m).sum()) ** 0.5)


@pytest.mark.parametrize(("batches", "first"), [(1, 0), (7, 8), (300, 0)])
def test_equals_the_form_over_gram_matrices(
    batches: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Moments, "BATCH", 40)
    # Features that share a part, far from 0 as after ReLU.
    shared = RNG.normal(size=(300, 5))
    x = shared @ RNG.normal(size=(5, 12)) + RNG.normal(size=(300, 12)) + 100
    y = shared @ RNG.normal(size=(5, 7)) + RNG.normal(size=(300, 7)) - 40
    found = linear_cka(scatter_of(np.hstack([x, y]), batches), slice(first, 12), slice(12, 19))
    assert 0.05 < found < 0.95
    assert found == pytest.approx(cka_by_hsic(x[:, first:], y), rel=1e-10)


def test_float32_rows_are_summed_in_float64() -> None:
    """20,000 rows with a mean of 1,000 deviations: float32 sums would lose the features."""
    x = (RNG.normal(size=(20_000, 3)) + 1000).astype(np.float32)
    found = scatter_of(x, 11).numpy() / (len(x) - 1)
    np.testing.assert_allclose(found, np.cov(x.T.astype(np.float64)), rtol=1e-9, atol=1e-9)


def test_points_are_drawn_from_the_split_without_repeats() -> None:
    points = [30, 1, 500, 0, 69]
    drawn = draw_points(points, 100)
    assert sum(map(len, drawn)) == 100
    for part, count in zip(drawn, points, strict=True):
        assert np.all(np.diff(part) > 0) and np.all((part >= 0) & (part < count))
    assert list(map(list, drawn)) == list(map(list, draw_points(points, 100)))
    # Each point of the split is as likely as any other: pictures get their share.
    assert abs(len(draw_points([1000, 3000], 2000)[0]) - 500) < 80
    assert [part.tolist() for part in draw_points([2, 3], 20_000)] == [[0, 1], [0, 1, 2]]


def pictures(name: str = "toy/val") -> MemorySplit:
    """Return a split of pictures of several sizes, without labels."""
    drawn = ShapesSplit("val", 3, 64)
    images = [drawn.image(index)[:height, :width] for index, (height, width) in enumerate(SIZES)]
    split = MemorySplit([(np.ascontiguousarray(image), None) for image in images], SHAPES)  # type: ignore[list-item]
    split.name = name
    return split


def model(variant: str = "seenet", **options: object) -> Segmenter:
    torch.manual_seed(0)
    return spread_norms(create_model(variant, **{**SMALL, **options}))  # type: ignore[arg-type,return-value]


def cka_by_hand(
    predictor: Predictor, x: str, y: str, strides: tuple[int, int], last: int, count: int
) -> float:
    """Compare points one by one: the mean of the finer stage's block with the coarser point.

    Only the `last` channels of x are taken; 0: all.
    """
    split, (fine, coarse) = pictures(), strides
    factor = coarse // fine
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    counts = [ceil(height / coarse) * ceil(width / coarse) for height, width in SIZES]
    for index, points in enumerate(draw_points(counts, count)):
        features = predictor.features(split.image(index))
        height, width = SIZES[index]
        x_map = features[x][0].double().numpy()[:, : ceil(height / fine), : ceil(width / fine)]
        y_map = features[y][0].double().numpy()
        for point in points:
            i, j = divmod(int(point), ceil(width / coarse))
            block = x_map[:, factor * i : factor * (i + 1), factor * j : factor * (j + 1)]
            rows.append((block.mean((1, 2))[-last:], y_map[:, i, j]))
    return cka_by_hsic(*map(np.array, zip(*rows, strict=True)))


@pytest.mark.parametrize(
    ("backbone", "stride"), [("resnet10t", 8), ("resnet10t", 16), ("convnext_atto", 32)]
)
def test_equals_point_by_point(backbone: str, stride: int) -> None:
    network = model(backbone=backbone, output_stride=stride)
    predictor = Predictor(network, SHAPES, device="cpu")
    found = {
        (*entry["stages"], entry["kind"]): entry for entry in compare(predictor, pictures(), 40)
    }
    middle = min(16, stride)
    expected = {
        ("B2", "B3", "before"): ("B2", (8, middle), 0),
        ("EB2", "B3", "after"): ("P2", (8, middle), 0),
        ("EB2", "B3", "branches"): ("P2", (8, middle), 32),
        ("B3", "B4", "before"): ("B3", (middle, stride), 0),
        ("P3", "B4", "after"): ("P3", (middle, stride), 0),
        ("P3", "B4", "branches"): ("P3", (middle, stride), 32),
    }
    assert list(found) == list(expected)
    for key, (x, strides, last) in expected.items():
        by_hand = cka_by_hand(predictor, x, key[1], strides, last, 40)
        assert found[key]["cka"] == pytest.approx(by_hand, rel=1e-4), key
        assert found[key]["stride"] == strides[1]
        assert last in (0, found[key]["channels"][0])
    total = sum(ceil(height / stride) * ceil(width / stride) for height, width in SIZES)
    assert found["B3", "B4", "before"]["pixels"] == min(40, total)


BEFORE = [("B2", "B3", False), ("B3", "B4", False)]


@pytest.mark.parametrize(
    ("variant", "options", "expected"),
    [
        ("baseline", {}, BEFORE),
        ("torchvision-fcn", {}, BEFORE),
        # A plain convolution replaces its input: it has no branches beside it.
        ("pfp", {}, [*BEFORE, ("P2", "B3", False), ("P3", "B4", False)]),
        ("pfp-seem-fs", {}, [*BEFORE, ("P2", "B3", True), ("P3", "B4", True)]),
        ("seenet", {"probe": "B3+EB2"}, [BEFORE[0], ("P2", "B3", True)]),
    ],
)
def test_pairs_of_a_model(
    variant: str, options: dict[str, str], expected: list[tuple[str, str, bool]]
) -> None:
    pairs = pairs_of(model(variant, **options))
    assert sorted((pair.x, pair.y, pair.branches > 0) for pair in pairs) == sorted(expected)


def test_a_stage_that_does_not_vary_is_named() -> None:
    network = model()
    for stage in (network.backbone.body.layer2, network.backbone.body.layer3):
        for parameter in stage.parameters():
            torch.nn.init.zeros_(parameter)
    with pytest.raises(NotFiniteError, match="B2 and B3: CKA is nan"):
        compare(Predictor(network, SHAPES, device="cpu"), pictures(), 40)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        gap, "open_split", lambda settings, which: pictures(f"{settings.kind}/{which}")
    )
    save_model(Path("net.safetensors"), model(), SHAPES)
    arguments = ["figure", "gap", "net.safetensors", "data.kind=shapes", "--device", "cpu"]
    assert run(capsys, *arguments, "--pixels", "1")[0] == 2
    arguments += ["--pixels", "30"]
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0 and "30 points are few for" in err, err
    result = json.loads(Path("gaps/net-val/gap.json").read_text())
    assert result == json.loads(out)
    model_entry = {"file": "net.safetensors", "sha256": sha256(Path("net.safetensors"))}
    expected = {"data": "shapes", "split": "val", "images": 3, "model": model_entry}
    assert {key: result[key] for key in expected} == expected
    assert np.asarray(Image.open("gaps/net-val/gap.png")).std() > 0
    assert run(capsys, *arguments)[0] == 4
    code, out, _ = run(capsys, *arguments, "--split", "test", "--out", "again")
    assert code == 0 and "written: again/gap.json" in out
    assert json.loads(Path("again/gap.json").read_text())["pairs"] == result["pairs"]
