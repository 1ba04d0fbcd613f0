"""`seenet export`: the bundle answers as the model does, or there is no bundle."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from seenet.core.errors import CheckError, DataError, UsageError
from seenet.core.files import sha256
from seenet.data.shapes import SHAPES, ShapesSplit
from seenet.export import run as exporting
from seenet.export.run import run_export
from seenet.model import create_model
from seenet.model.files import load_model, save_model
from seenet.prediction.bundles.bundle import KEY
from seenet.prediction.bundles.formats import check_path
from seenet.prediction.loading import load
from tests.prediction.doubles import picture, seenet_command

SMALL, WIDE, BRANCHING = (
    f"tests.export.networks:{name}" for name in ("small", "wide", "branching")
)
"""Networks; the first one exports in a second or two."""


def save(path: Path, factory: str = SMALL) -> Path:
    save_model(path, create_model(factory=factory, num_classes=6).eval(), SHAPES)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(3):
        Image.fromarray(ShapesSplit("val", 50, 64).image(index)).save(folder / f"{index}.png")
    return folder


def export(model: Path, pictures: Path, out: Path) -> Path:
    labelled: dict[str, Any] = {"recipe": "shapes", "overrides": ["data.size=48", "data.count=50"]}
    run_export(model, out, "onnx", images=[pictures], factory=SMALL, **labelled)
    return out


@pytest.fixture(scope="module")
def bundle(model: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(model, pictures, tmp_path_factory.mktemp("bundle") / "small.onnx")


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (7, 2), (33, 50), (64, 64)])
def test_the_bundle_answers_as_the_model(model: Path, bundle: Path, size: tuple[int, int]) -> None:
    image = picture(*size)
    for flip, tolerance in ((False, 1e-5), (True, 1e-4)):
        one, other = load(model, "cpu", factory=SMALL, flip=flip), load(bundle, flip=flip)
        expected = one.scores(image).numpy()
        limit = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(other.scores(image), expected, atol=limit)
        assert np.array_equal(other.mask(image), one.mask(image))
        assert other.labels == one.labels


def test_the_table_of_the_verification_lies_beside_it(model: Path, bundle: Path) -> None:
    assert set(bundle.parent.iterdir()) == {bundle, check_path(bundle)}
    table = json.loads(check_path(bundle).read_text())
    assert table["files"] == {"small.onnx": sha256(bundle)}
    assert table["model_sha256"] == sha256(model)
    assert table["argmax_agreement"] >= 0.9999
    assert table["miou"]["model"] == table["miou"]["bundle"] and table["miou"]["images"] == 50
    sizes = {(row["batch"], row["height"], row["width"]) for row in table["rows"]}
    assert {batch for batch, _, _ in sizes} == {1, 2, 3, 4} and (1, 1, 1) in sizes


def test_the_file_is_self_contained_and_describes_itself(bundle: Path) -> None:
    proto = onnx.load(bundle, load_external_data=False)
    onnx.checker.check_model(proto)
    sides = [
        [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in proto.graph.input
    ]
    assert sides == [["batch", "height", "width", 3]]
    assert [value.name for value in proto.graph.output] == ["mask", "scores"]
    (card,) = [json.loads(entry.value) for entry in proto.metadata_props if entry.key == KEY]
    assert card["labels"]["classes"] == list(SHAPES.classes)
    assert card["labels"]["colours"] == [list(colour) for colour in SHAPES.colours]
    assert card["mean"] == pytest.approx([0.485, 0.456, 0.406])
    traces = (str(Path.cwd()).encode(), b"/site-packages/", b".py")
    assert not any(trace in bundle.read_bytes() for trace in traces)


def test_the_same_bytes_again(model: Path, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    again = export(model, pictures, tmp_path / "elsewhere" / "small.onnx")
    assert again.read_bytes() == bundle.read_bytes()
    assert check_path(again).read_bytes() == check_path(bundle).read_bytes()


def test_a_failed_check_leaves_no_file(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, out = exporting._write, tmp_path / "small.onnx"

    def write_another(path: Path, kind: Any, saved: Any, *rest: Any, **more: Any) -> None:
        other = load_model(saved.path, factory=SMALL)
        other.model.network.head.weight.data *= 1.01
        write(path, kind, other, *rest, **more)

    monkeypatch.setattr(exporting, "_write", write_another)
    with pytest.raises(CheckError, match="a score differs by"):
        run_export(model, out, "onnx", images=[pictures], factory=SMALL)
    assert list(tmp_path.iterdir()) == []
    out.write_text("mine")
    words = ["--format", "onnx", "--out", out, "--images", pictures, "--factory", SMALL]
    assert seenet_command("export", model, *words, "--overwrite") == 6
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"out": "small.xml"}, DataError, r"expected \.onnx"),
        ({"out": "there.onnx"}, DataError, "--overwrite"),
        (
            {"kind": "torch", "out": "small.pt2", "int8": True},
            UsageError,
            "available for onnx, openvino",
        ),
        ({"half": True}, UsageError, "available for openvino"),
        ({"half": True, "int8": True}, UsageError, "expected one of them"),
        ({"kind": "torch", "out": "small.pt2", "plain": True}, UsageError, "--plain: torch"),
        ({"int8": True, "plain": True}, UsageError, "--plain: --int8"),
        ({"int8": True}, UsageError, "give --images"),
        ({"int8": True, "images": ["three"]}, UsageError, "found 3 pictures .* at least 16"),
        ({"split": "val"}, UsageError, "give --recipe too"),
        ({"images": ["nowhere"]}, DataError, "nowhere: no such file"),
        ({"recipe": "nowhere"}, UsageError, "unknown recipe"),
        ({"factory": None}, UsageError, "repeat the name with --factory"),
    ],
)
def test_refused_before_anything_is_written(
    model: Path,
    pictures: Path,
    tmp_path: Path,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    (tmp_path / "there.onnx").write_text("mine")
    given = {"kind": "onnx", "out": "small.onnx", "factory": SMALL, **options}
    given["out"] = tmp_path / given["out"]
    given["images"] = (
        [pictures] if options.get("images") == ["three"] else options.get("images", ())
    )
    with pytest.raises(error, match=message):
        run_export(model, **given)
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]


def test_a_missing_package_names_the_extra(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"need onnxscript .*pip install 'seenet\[export\]'"):
        run_export(model, tmp_path / "small.onnx", "onnx", factory=SMALL)


def test_a_network_that_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "model.safetensors", BRANCHING)
    with pytest.raises(DataError, match=r"cannot be exported: torch\.export stops with"):
        run_export(path, tmp_path / "x.onnx", "onnx", factory=BRANCHING)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_command_prints_the_table(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--format", "torch", "--images", pictures, "--factory", SMALL]
    assert seenet_command("export", model, "--out", tmp_path / "small.pt2", *words) == 0
    printed = capsys.readouterr().out
    assert "same class in 100.0000 %" in printed
    assert "give --recipe" in printed
    assert str(check_path(tmp_path / "small.pt2")) in printed.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--out", "x.safetensors", "--int8"], "--int8"),
        (["--format", "torch", "--out", "x.pt2", "--plain"], "--plain"),
    ],
)
def test_options_of_another_format_are_refused(
    model: Path, capsys: pytest.CaptureFixture[str], words: list[str], option: str
) -> None:
    assert seenet_command("export", model, *words) == 2
    assert f"{option}: " in capsys.readouterr().err


def test_wide_convolutions_are_written_as_products_unless_plain(
    pictures: Path, tmp_path: Path
) -> None:
    path, masks, convolutions = save(tmp_path / "model.safetensors", WIDE), [], []
    words = ["--format", "onnx", "--images", pictures, "--factory", WIDE]
    for more in ([], ["--plain"]):
        out = tmp_path / f"{len(more)}.onnx"
        assert seenet_command("export", path, "--out", out, *words, *more) == 0
        graph = onnx.load(out).graph
        convolutions.append([node.op_type for node in graph.node].count("Conv"))
        # The file holds the original weights.
        assert [tensor.dims[:] for tensor in graph.initializer].count([128, 128, 3, 3]) == 1
        masks.append(load(out).mask(picture(45, 70)))
    assert convolutions == [2, 3]
    assert np.array_equal(*masks)
