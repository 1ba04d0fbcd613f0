"""`seenet export`: the bundle answers as the model does, or there is no bundle."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from seenet.cli import main
from seenet.core.errors import CheckError, DataError, UsageError
from seenet.core.files import sha256
from seenet.data.shapes import SHAPES, ShapesSplit
from seenet.export import run as exporting
from seenet.export.run import checking_pictures, run_export
from seenet.model import create_model
from seenet.model.files import load_model, save_model
from seenet.prediction.bundles.bundle import KEY
from seenet.prediction.bundles.formats import check_path
from seenet.prediction.loading import load

SMALL = "tests.export.networks:small"
"""A network that exports in a second or two."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(path, create_model(factory=SMALL, num_classes=6).eval(), SHAPES)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(3):
        Image.fromarray(ShapesSplit("val", 50, 64).image(index)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def bundle(model: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "small.onnx"
    run_export(
        model,
        out,
        "onnx",
        images=[pictures],
        recipe="shapes",
        overrides=["data.size=48", "data.count=50"],
        factory=SMALL,
    )
    return out


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 8), (7, 2), (33, 50), (64, 64)])
def test_the_bundle_answers_as_the_model(
    model: Path, bundle: Path, height: int, width: int
) -> None:
    one, other = load(model, "cpu", factory=SMALL), load(bundle)
    picture = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = one.scores(picture).numpy()  # type: ignore[union-attr]
    np.testing.assert_allclose(other.scores(picture), expected, atol=1e-5 * np.abs(expected).max())
    assert np.array_equal(other.mask(picture), one.mask(picture))
    assert other.labels == one.labels
    flips = [
        load(path, "cpu", flip=True, factory=name).scores(picture)
        for path, name in ((model, SMALL), (bundle, None))
    ]
    np.testing.assert_allclose(flips[1], flips[0].numpy(), atol=1e-4)  # type: ignore[union-attr]


def test_what_lies_beside_it(model: Path, bundle: Path) -> None:
    assert sorted(path.name for path in bundle.parent.iterdir()) == [
        "small.onnx",
        "small.onnx.check.json",
    ]
    checked = json.loads(check_path(bundle).read_text())
    assert checked["files"] == {"small.onnx": sha256(bundle)}
    assert checked["model_sha256"] == sha256(model)
    assert checked["argmax_agreement"] >= 0.9999
    assert checked["miou"]["model"] == checked["miou"]["bundle"]
    assert checked["miou"]["images"] == 50
    assert {row["batch"] for row in checked["rows"]} == {1, 2, 3, 4}
    assert (1, 1, 1) in {(row["batch"], row["height"], row["width"]) for row in checked["rows"]}


def test_the_file_is_self_contained_and_says_what_it_is(bundle: Path) -> None:
    proto = onnx.load(bundle, load_external_data=False)
    onnx.checker.check_model(proto)
    sides = [
        [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in proto.graph.input
    ]
    assert sides == [["batch", "height", "width", 3]]
    assert [value.name for value in proto.graph.output] == ["mask", "scores"]
    (entry,) = [entry for entry in proto.metadata_props if entry.key == KEY]
    card = json.loads(entry.value)
    assert card["labels"]["classes"] == list(SHAPES.classes)
    assert card["labels"]["colours"] == [list(colour) for colour in SHAPES.colours]
    assert card["mean"] == pytest.approx([0.485, 0.456, 0.406])
    text = bundle.read_bytes()
    for trace in (str(Path.cwd()).encode(), b"/site-packages/", b".py"):
        assert trace not in text


def test_the_same_bytes_again(model: Path, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere" / "small.onnx"
    run_export(
        model,
        again,
        "onnx",
        images=[pictures],
        recipe="shapes",
        overrides=["data.size=48", "data.count=50"],
        factory=SMALL,
    )
    assert again.read_bytes() == bundle.read_bytes()
    assert check_path(again).read_bytes() == check_path(bundle).read_bytes()


def test_a_failed_check_leaves_no_file(
    model: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write = exporting._write

    def write_another(
        path: Path,
        kind: str,
        saved: exporting.SavedModel,
        *rest: object,
        **more: object,
    ) -> None:
        other = load_model(saved.path, factory=SMALL)
        other.model.network.head.weight.data *= 1.01  # type: ignore[union-attr, operator]
        write(path, kind, other, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(exporting, "_write", write_another)
    out = tmp_path / "small.onnx"
    with pytest.raises(CheckError, match=r"a score differs by .*nothing was written"):
        run_export(model, out, "onnx", images=[pictures], factory=SMALL)
    assert list(tmp_path.iterdir()) == []
    out.write_text("mine")
    line = [
        "export",
        str(model),
        "--format",
        "onnx",
        "--out",
        str(out),
        "--images",
        str(pictures),
        "--factory",
        SMALL,
        "--overwrite",
    ]
    with pytest.raises(SystemExit) as caught:
        main(line)
    assert caught.value.code == 6
    assert "does not answer" in capsys.readouterr().err.splitlines()[-1]
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
        (
            {"kind": "torch", "out": "small.pt2", "plain": True},
            UsageError,
            "--plain: torch is so anyway",
        ),
        ({"int8": True, "plain": True}, UsageError, "--plain: --int8 is so anyway"),
        ({"int8": True}, UsageError, "give --images"),
        ({"split": "val"}, UsageError, "give --recipe too"),
        ({"images": ["nowhere"]}, DataError, "nowhere: no such file"),
        ({"recipe": "nowhere"}, UsageError, "unknown recipe"),
        ({"factory": None}, UsageError, "repeat the name with --factory"),
    ],
)
def test_refused_at_the_door(
    model: Path, tmp_path: Path, options: dict[str, object], error: type[Exception], message: str
) -> None:
    (tmp_path / "there.onnx").write_text("mine")
    given = {
        "kind": "onnx",
        "factory": SMALL,
        **options,
        "out": tmp_path / str(options.get("out", "small.onnx")),
    }
    with pytest.raises(error, match=message):
        run_export(model, **given)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]


def test_too_few_pictures_for_int8(model: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found 3 pictures to calibrate on, expected at least 16"):
        run_export(
            model, tmp_path / "small.onnx", "onnx", int8=True, images=[pictures], factory=SMALL
        )
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_two_folders_may_be_called_the_same(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "others")
    found = checking_pictures([pictures, tmp_path / "others"], tmp_path / "small.onnx")
    assert found == [
        folder / f"{index}.png" for folder in (pictures, tmp_path / "others") for index in range(3)
    ]


def test_a_missing_package_names_the_extra(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"need onnxscript .*pip install 'seenet\[export\]'"):
        run_export(model, tmp_path / "small.onnx", "onnx", factory=SMALL)


def test_a_network_that_cannot_be_traced(tmp_path: Path) -> None:
    branching = "tests.export.networks:branching"
    path = tmp_path / "model.safetensors"
    save_model(path, create_model(factory=branching, num_classes=6).eval(), SHAPES)
    with pytest.raises(DataError, match=r"cannot be exported: torch\.export stops with") as caught:
        run_export(path, tmp_path / "x.onnx", "onnx", factory=branching)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_table_is_printed(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.pt2"
    with pytest.raises(SystemExit) as caught:
        main(
            [
                "export",
                str(model),
                "--format",
                "torch",
                "--out",
                str(out),
                "--images",
                str(pictures),
                "--factory",
                SMALL,
            ]
        )
    printed = capsys.readouterr().out
    assert not caught.value.code
    assert "same class in 100.0000 % of the pixels" in printed
    assert "mIoU not compared: no labels; give --recipe" in printed
    assert str(check_path(out)) in printed.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.safetensors", "--int8"], "--int8: --format fp16 takes none of it"),
        (["--format", "torch", "--out", "x.pt2", "--plain"], "--plain"),
    ],
)
def test_wrong_options_are_wrong_usage(
    model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", str(model), *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_wide_convolutions_are_written_out_unless_plain(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = "tests.export.networks:wide"
    network = create_model(factory=wide, num_classes=6).eval()
    path = tmp_path / "model.safetensors"
    save_model(path, network, SHAPES)
    kinds, masks = {}, {}
    picture = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    for name, more in (("quick", []), ("plain", ["--plain"])):
        out = tmp_path / f"{name}.onnx"
        with pytest.raises(SystemExit) as caught:
            main(
                [
                    "export",
                    str(path),
                    "--format",
                    "onnx",
                    "--out",
                    str(out),
                    "--images",
                    str(pictures),
                    "--factory",
                    wide,
                    *more,
                ]
            )
        assert not caught.value.code, capsys.readouterr().err
        graph = onnx.load(out).graph
        kinds[name] = (
            [node.op_type for node in graph.node].count("Conv"),
            [tensor.dims[:] for tensor in graph.initializer].count([128, 128, 3, 3]),
        )
        masks[name] = load(out).mask(picture)
    # The weights stand in the file as they were, in either.
    assert kinds == {"quick": (2, 1), "plain": (3, 1)}
    assert np.array_equal(masks["quick"], masks["plain"])
