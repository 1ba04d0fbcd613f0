"""The semantic gap: linear CKA, the stages of a real small network point by point, and the command."""

import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ortho_group

from seenet.cli import main
from seenet.core.errors import NotFiniteError, UsageError
from seenet.core.files import sha256
from seenet.core.labels import LabelSet
from seenet.data.shapes import SHAPES, ShapesSplit
from seenet.experiments import gap
from seenet.experiments.gap import Moments, compare, draw_points, linear_cka, pairs_of
from seenet.model import Segmenter, create_model
from seenet.model.files import save_model
from seenet.prediction.predictor import Predictor
from tests.model.test_baselines import randomize_norms

RNG = np.random.default_rng(1)
SMALL = {"backbone": "resnet10t", "num_classes": SHAPES.num_classes, "width": 8, "p_out": 16}


def features(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Two that share some of what they say, far from 0 as after ReLU."""
    shared = RNG.normal(size=(count, 5))
    x = shared @ RNG.normal(size=(5, 12)) + RNG.normal(size=(count, 12)) + 100
    y = shared @ RNG.normal(size=(5, 7)) + RNG.normal(size=(count, 7)) - 40
    return x, y


def cka(x: np.ndarray, y: np.ndarray, parts: int = 1) -> float:
    moments = Moments(x.shape[1] + y.shape[1])
    for part in np.array_split(np.hstack([x, y]), parts):
        moments.add(torch.from_numpy(part))
    return linear_cka(moments.scatter, slice(0, x.shape[1]), slice(x.shape[1], None))


def by_hsic(x: np.ndarray, y: np.ndarray) -> float:
    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        h = np.eye(n) - np.ones((n, n)) / n
        return float(np.trace(k @ h @ m @ h) / (n - 1) ** 2)

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / (hsic(k, k) * hsic(m, m)) ** 0.5


@pytest.mark.parametrize("parts", [1, 7, 300])
def test_equals_the_form_over_gram_matrices(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Moments, "PART", 40)
    x, y = features()
    found = cka(x, y, parts)
    assert 0.05 < found < 0.95
    assert found == pytest.approx(by_hsic(x, y), rel=1e-10)


def test_invariances() -> None:
    x, y = features()
    found = cka(x, y)
    assert cka(x, x) == pytest.approx(1, abs=1e-12)
    assert cka(y, x) == pytest.approx(found, rel=1e-12)
    assert cka(x @ ortho_group.rvs(12, random_state=0), y) == pytest.approx(found, rel=1e-10)
    assert cka(-3.5 * x + RNG.normal(size=12), 1e-3 * y) == pytest.approx(found, rel=1e-10)
    # It is not invariant to any invertible map: that is the point of it.
    assert abs(cka(x * np.linspace(0.01, 3, 12), y) - found) > 1e-3


def test_a_part_of_the_channels() -> None:
    x, y = features()
    moments = Moments(19)
    moments.add(torch.from_numpy(np.hstack([x, y])))
    assert linear_cka(moments.scatter, slice(8, 12), slice(12, 19)) == pytest.approx(by_hsic(x[:, 8:], y), rel=1e-10)


def test_float32_rows_are_summed_in_float64() -> None:
    """20,000 rows with a mean of 1,000 deviations: float32 sums would lose the features."""
    x = (RNG.normal(size=(20_000, 3)) + 1000).astype(np.float32)
    moments = Moments(3)
    for part in np.array_split(x, 11):
        moments.add(torch.from_numpy(part))
    np.testing.assert_allclose(moments.scatter.numpy() / (len(x) - 1), np.cov(x.T.astype(np.float64)), rtol=1e-9, atol=1e-9)


def test_without_variation_there_is_no_number() -> None:
    x, y = features()
    assert np.isnan(cka(np.ones_like(x), y))


def test_draws_are_points_of_the_split_without_repeats() -> None:
    points = [30, 1, 500, 0, 69]
    drawn = draw_points(points, 100)
    assert sum(map(len, drawn)) == 100
    for part, count in zip(drawn, points, strict=True):
        assert len(np.unique(part)) == len(part) and np.all(np.diff(part) > 0)
        assert len(part) == 0 or 0 <= part[0] <= part[-1] < count
    assert all(np.array_equal(a, b) for a, b in zip(drawn, draw_points(points, 100), strict=True))
    # Each point of the split is as likely as any other: pictures get their share.
    shares = np.array([len(part) for part in draw_points([1000, 3000], 2000)])
    assert abs(shares[0] - 500) < 80


def test_all_points_where_there_are_no_more() -> None:
    assert [part.tolist() for part in draw_points([2, 3], 20_000)] == [[0, 1], [0, 1, 2]]


@dataclass(frozen=True)
class Pictures:
    """A split without labels, of pictures of several sizes."""

    sizes: tuple[tuple[int, int], ...] = ((48, 64), (41, 50), (64, 33))
    name: str = "toy/val"
    labels: LabelSet = SHAPES

    def __len__(self) -> int:
        return len(self.sizes)

    def key(self, index: int) -> str:
        return str(index)

    def paths(self, index: int) -> tuple[None, None]:
        return None, None

    def image(self, index: int) -> np.ndarray:
        return np.ascontiguousarray(ShapesSplit("val", 3, 64).image(index)[: self.sizes[index][0], : self.sizes[index][1]])

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("the gap looks at no label")


def model(variant: str = "seenet", **options: object) -> Segmenter:
    torch.manual_seed(0)
    return randomize_norms(create_model(variant, **{**SMALL, **options}))  # type: ignore[arg-type,return-value]


def by_hand(predictor: Predictor, split: Pictures, x: str, y: str, strides: tuple[int, int], last: int | None, count: int) -> float:
    """Features of drawn points one after the other, the finer stage's as the mean of what lies under the coarser point."""
    counts = [ceil(h / strides[1]) * ceil(w / strides[1]) for h, w in split.sizes]
    rows: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for index, points in enumerate(draw_points(counts, count)):
        features = {key: value[0].double().cpu().numpy() for key, value in predictor.features(split.image(index)).items()}
        height, width = split.sizes[index]
        factor = strides[1] // strides[0]
        fine = features[x][:, : ceil(height / strides[0]), : ceil(width / strides[0])]
        for point in points:
            row, column = divmod(int(point), ceil(width / strides[1]))
            block = fine[:, factor * row : factor * (row + 1), factor * column : factor * (column + 1)]
            rows[0].append(block.mean((1, 2))[-last:] if last else block.mean((1, 2)))
            rows[1].append(features[y][:, row, column])
    return by_hsic(np.array(rows[0]), np.array(rows[1]))


@pytest.mark.parametrize(("backbone", "output_stride"), [("resnet10t", 8), ("resnet10t", 16), ("convnext_atto", 32)])
def test_equals_point_by_point(backbone: str, output_stride: int) -> None:
    predictor = Predictor(model(backbone=backbone, output_stride=output_stride), SHAPES, device="cpu")
    split, s = Pictures(), output_stride
    stride3 = min(16, s)
    found = {(*entry["stages"], entry["kind"]): entry for entry in compare(predictor, split, 40)}
    expected = {
        ("B2", "B3", "before"): ("B2", "B3", (8, stride3), None),
        ("EB2", "B3", "after"): ("P2", "B3", (8, stride3), None),
        ("EB2", "B3", "branches"): ("P2", "B3", (8, stride3), 32),
        ("B3", "B4", "before"): ("B3", "B4", (stride3, s), None),
        ("P3", "B4", "after"): ("P3", "B4", (stride3, s), None),
        ("P3", "B4", "branches"): ("P3", "B4", (stride3, s), 32),
    }
    assert list(found) == list(expected)
    for key, arguments in expected.items():
        assert found[key]["cka"] == pytest.approx(by_hand(predictor, split, *arguments, 40), rel=1e-4), key
        assert found[key]["stride"] == arguments[2][1]
    total = sum(ceil(h / s) * ceil(w / s) for h, w in split.sizes)
    assert found["B3", "B4", "before"]["pixels"] == min(40, total)
    assert [found[key]["channels"][0] for key in found if key[2] == "branches"] == [32, 32]


def test_pairs_that_a_model_has() -> None:
    def names(network: Segmenter) -> list[tuple[str, str, bool]]:
        return [(pair.x, pair.y, pair.branches > 0) for pair in pairs_of(network)]

    assert names(model("baseline")) == names(model("torchvision-fcn")) == [("B2", "B3", False), ("B3", "B4", False)]
    plain = [("B2", "B3", False), ("P2", "B3", False), ("B3", "B4", False), ("P3", "B4", False)]
    # A plain convolution replaces its input: nothing there is a branch behind it.
    assert names(model("pfp")) == plain
    assert names(model("pfp-seem-fs")) == [(x, y, x[0] == "P") for x, y, _ in plain]
    assert names(model(probe="B3+EB2")) == [("B2", "B3", False), ("P2", "B3", True)]


def test_a_stage_without_life_is_said() -> None:
    network = model()
    for parameter in network.backbone.body.layer3.parameters():
        torch.nn.init.zeros_(parameter)
    for parameter in network.backbone.body.layer2.parameters():
        torch.nn.init.zeros_(parameter)
    with pytest.raises(NotFiniteError, match="B2 and B3: CKA is nan"):
        compare(Predictor(network, SHAPES, device="cpu"), Pictures(), 40)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["figure", "gap", *arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gap, "open_split", lambda settings, which: Pictures(name=f"{settings.kind}/{which}"))
    save_model(Path("net.safetensors"), model(), SHAPES)
    data = ["net.safetensors", "data.kind=shapes", "--device", "cpu", "--pixels", "30"]
    code, out, err = call(capsys, *data, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result == json.loads(Path("gaps/net-val/gap.json").read_text())
    assert len(result["pairs"]) == 6 and all(0 < entry["cka"] <= 1 for entry in result["pairs"])
    assert (result["data"], result["split"], result["images"], result["pixels"], result["seed"]) == ("shapes", "val", 3, 30, 0)
    assert result["model"] == {"file": "net.safetensors", "sha256": sha256(Path("net.safetensors"))}
    assert result["precision"] == "fp32" and result["version"] and "seenet" in result["command"]
    assert "30 points are few for" in err
    with Image.open("gaps/net-val/gap.png") as picture:
        assert picture.format == "PNG" and np.asarray(picture).std() > 0
    code, _, err = call(capsys, *data)
    assert code == 4 and "--overwrite" in err
    # Another split lies elsewhere; and the same points are drawn again.
    code, out, _ = call(capsys, *data, "--split", "test", "--out", "again")
    assert code == 0 and "written: again/gap.json" in out and f"{result['pairs'][2]['cka']:.3f}" in out
    assert json.loads(Path("again/gap.json").read_text())["pairs"] == result["pairs"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--pixels", "1", "data.kind=shapes"], 2, "expected at least 2"),
        ([], 2, "belongs to no run whose recipe says which data"),
        (["data.kind=shapes", "--split", "vall"], 2, "no split vall"),
    ],
)
def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str) -> None:
    save_model(tmp_path / "net.safetensors", model("baseline"), SHAPES)
    found, _, err = call(capsys, str(tmp_path / "net.safetensors"), *arguments, "--out", str(tmp_path / "out"))
    assert found == code and message in err
    assert not (tmp_path / "out").exists()


def test_a_network_of_the_users_own_is_refused_without_running_it(tmp_path: Path) -> None:
    made = create_model(factory="tests.model.test_factory:any_size", num_classes=SHAPES.num_classes)
    save_model(tmp_path / "net.safetensors", made, SHAPES)
    with pytest.raises(UsageError, match="whose stages and modules are not known"):
        gap.write_gap(str(tmp_path / "net.safetensors"), None, ["data.kind=shapes"])
