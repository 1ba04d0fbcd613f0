"""The semantic gap of a real small network against the same number worked out point by point, and what the command leaves behind."""

import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seenet.cli import main
from seenet.core.errors import NotFiniteError, UsageError
from seenet.core.files import sha256
from seenet.core.labels import SHAPES, LabelSet
from seenet.data.shapes import ShapesSplit
from seenet.experiments import gap
from seenet.experiments.cka import draw_points
from seenet.experiments.gap import compare, pairs_of
from seenet.model import Segmenter, create_model
from seenet.model.files import save_model
from seenet.prediction.predictor import Predictor
from tests.experiments.test_cka import by_hsic
from tests.model.test_baselines import settle

SMALL = {"backbone": "resnet10t", "num_classes": SHAPES.num_classes, "width": 8, "p_out": 16}


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
    return settle(create_model(variant, **{**SMALL, **options}))  # type: ignore[arg-type,return-value]


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
