"""`seenet figure` as a user types it: the code, the line, the files, and nothing overwritten."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.test_main import run
from tests.experiments.figures import save_scene, save_small, scene


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, two pictures and a mask where the user is."""
    monkeypatch.chdir(tmp_path)
    save_small(tmp_path / "runs/mine/model.safetensors")
    (tmp_path / "photos").mkdir()
    save_scene(tmp_path / "photos/a.png")
    save_scene(tmp_path / "photos/b.jpg", 1)
    Image.fromarray(scene()[1]).save(tmp_path / "truth.png")
    return tmp_path


def test_heat(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, err = run(capsys, "figure", "heat", "runs/mine", "photos", "--device", "cpu")
    assert (code, out) == (0, "2 written, 0 failed: heat\n"), err
    assert "heat maps: 2/2" in err
    assert sorted(path.name for path in (folder / "heat").iterdir()) == ["a.png", "b.png"]
    before = (folder / "heat/a.png").read_bytes()
    code, _, err = run(capsys, "figure", "heat", "runs/mine", "photos/a.png", "--device", "cpu")
    assert (code, err) == (4, "seenet: heat/a.png: exists already; use --overwrite or another --out\n")
    assert (folder / "heat/a.png").read_bytes() == before
    code, _, err = run(capsys, "figure", "heat", "runs/mine", "photos/a.png", "--mask", "truth.png", "--overwrite", "--device", "cpu")
    assert code == 0, err
    assert (folder / "heat/a.png").read_bytes() != before


def test_attention(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "photos/c.jpg").write_bytes(b"")
    code, out, err = run(capsys, "figure", "attention", "runs/mine", "photos", "--json", "--device", "cpu")
    assert code == 3
    assert err.splitlines()[-1].startswith("seenet: 1 of 3 pictures failed, the rest is done: photos/c.jpg: an empty file")
    result = json.loads(out)
    assert [entry["image"] for entry in result["images"]] == ["photos/a.png", "photos/b.jpg"]
    assert result["images"][0]["near_pixels"] > 100
    assert sorted(path.name for path in (folder / "attention").iterdir()) == ["a.png", "b.png"]
    code, out, err = run(capsys, "figure", "attention", "runs/mine", "photos/a.png", "--out", "other", "--device", "cpu")
    assert code == 0, err
    line, last = out.splitlines()
    near, elsewhere = (result["images"][0][key] for key in ("near", "elsewhere"))
    assert line.startswith(f"photos/a.png: {near:.3f} within 3 pixels of predicted boundaries, {elsewhere:.3f} elsewhere: ")
    assert last == "1 written, 0 failed: other"


def test_sampling(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, err = run(capsys, "figure", "sampling", "--rates", "2,7")
    assert code == 0, err
    assert "SeEM: sparse, rate 7: 9 of 225 points in the window\n" in out
    assert "SeEM-FS: full, rate 7: 225 of 225 points in the window, 216 beyond\n" in out
    assert out.endswith("written: sampling.png\n")
    before = (folder / "sampling.png").read_bytes()
    code, _, err = run(capsys, "figure", "sampling", "runs/mine")
    assert (code, err) == (4, "seenet: sampling.png: exists already; use --overwrite or another --out\n")
    assert (folder / "sampling.png").read_bytes() == before
    code, out, err = run(capsys, "figure", "sampling", "runs/mine", "--json", "--overwrite")
    assert code == 0, err
    assert [(module["name"], module["branches"][0]["rate"]) for module in json.loads(out)] == [
        ("P2: SeEM", 1), ("P3: SeEM", 3), ("P4: SeEM-FS", 7),
    ]  # fmt: skip


def test_panels(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    # An ablation's runs have such names.
    save_small(folder / "ablations/baseline-p_out=16-seed-0/model.safetensors", "baseline")
    models = ["ablations/baseline-p_out=16-seed-0", "runs/mine"]
    data = ["data.kind=shapes", "data.size=48", "data.count=20", "--count", "1", "--device", "cpu"]
    code, out, err = run(capsys, "figure", "panels", *models, *data)
    assert (code, out) == (0, "written: panels.png\n"), err
    assert "panels shapes/val: 50/50" in err
    before = (folder / "panels.png").read_bytes()
    code, _, err = run(capsys, "figure", "panels", *models, "--images", "photos/a.png", "--images", "photos/b.jpg", "--device", "cpu")
    assert (code, err) == (4, "seenet: panels.png: exists already; use --overwrite or another --out\n")
    code, out, err = run(
        capsys, "figure", "panels", *models, "--images", "photos/a.png", "--images", "photos/b.jpg", "--out", "own.png", "--device", "cpu"
    )
    assert (code, out) == (0, "written: own.png\n"), err
    assert (folder / "panels.png").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["heat", "nothing", "photos"], 4, "nothing: no such run"),
        (["heat", "runs/mine", "none.png"], 4, "none.png: no such file"),
        (["heat", "runs/mine", "truth.txt"], 4, "truth.txt: not a picture"),
        (["heat", "runs/mine"], 2, "Missing argument"),
        (["heat", "runs/mine", "photos", "--mask", "truth.png"], 2, "found 2 pictures"),
        (["heat", "runs/mine", "photos/a.png", "--mask", "none.png"], 4, "none.png: no such file"),
        (["heat", "runs/mine", "photos/a.png", "--device", "tpu"], 2, "device tpu"),
        (["heat", "runs/mine", "photos/a.png", "--out", "truth.txt"], 4, "truth.txt: a file, expected a folder"),
        (["heat", "own.safetensors", "photos/a.png"], 2, "whose stages and modules are not known"),
        (["attention", "own.safetensors", "photos/a.png"], 2, "whose stages and modules are not known"),
        (["attention", "plain.safetensors", "photos/a.png"], 2, "the variant that has: seenet"),
        (["attention", "truth.txt", "photos/a.png"], 4, "truth.txt"),
        (["sampling", "own.safetensors"], 2, "whose stages and modules are not known"),
        (["sampling", "plain.safetensors"], 2, "neither SeEM nor SeEM-FS"),
        (["sampling", "--rates", "seven"], 2, "--rates seven: expected whole numbers"),
        (["sampling", "--rates", "0"], 2, "from 1 to 100"),
        (["sampling", "--out", "a.jpg"], 2, "ends in .png"),
        (["panels", "data.kind=shapes"], 2, "found no model"),
        (["panels", "runs/mine"], 2, "belongs to no run"),
        (["panels", "runs/mine", "--recipe", "shapes", "--split", "vla"], 2, "vla"),
        (["panels", "runs/mine", "--images", "photos", "data.kind=shapes"], 2, "leave one of them out"),
        (["panels", "own.safetensors", "--images", "photos"], 2, "repeat the name with --factory"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str], code: int, message: str) -> None:
    (folder / "truth.txt").write_text("no picture")
    if "own.safetensors" in arguments:
        save_own(folder / "own.safetensors")
    if "plain.safetensors" in arguments:
        save_small(folder / "plain.safetensors", "baseline")
    before = sorted(folder.rglob("*"))
    found, _, err = run(capsys, "figure", *arguments)
    assert found == code, err
    assert message in err
    assert err.strip().splitlines()[-1].startswith("seenet: ")
    assert sorted(folder.rglob("*")) == before


def test_a_network_of_ones_own_in_panels(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """It needs no stages there, but its name again; the others do not get it."""
    save_own(folder / "own.safetensors")
    code, out, err = run(
        capsys, "figure", "panels", "own.safetensors", "runs/mine", "--images", "photos/a.png", "--factory", OWN, "--device", "cpu"
    )
    assert (code, out) == (0, "written: panels.png\n"), err


OWN = f"{__name__}:build"


def build(num_classes: int):  # type: ignore[no-untyped-def]
    from torch import nn

    return nn.Conv2d(3, num_classes, 3, padding=1)


def save_own(path: Path) -> None:
    from seenet.data.shapes import SHAPES
    from seenet.model import create_model
    from seenet.model.files import save_model

    save_model(path, create_model(factory=OWN, num_classes=SHAPES.num_classes), SHAPES)
