"""`seenet figure` from the command line: exit codes, outputs, and no file replaced."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.model.files import save_model
from tests.cli.commands import run
from tests.experiments.figures import save_scene, save_small, scene

OWN = f"{__name__}:build"


def build(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, num_classes, 3, padding=1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with models, two images and a mask."""
    folder = tmp_path_factory.mktemp("prepared")
    save_small(folder / "runs/mine/model.safetensors")
    save_small(folder / "plain.safetensors", "baseline")
    own = create_model(factory=OWN, num_classes=SHAPES.num_classes)
    save_model(folder / "own.safetensors", own, SHAPES)
    (folder / "photos").mkdir()
    save_scene(folder / "photos/a.png")
    save_scene(folder / "photos/b.jpg", 1)
    Image.fromarray(scene()[1]).save(folder / "truth.png")
    (folder / "truth.txt").write_text("not an image")
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a copy of the prepared folder."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_heat(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    heat = ["figure", "heat", "runs/mine", "--device", "cpu"]
    code, out, err = run(capsys, *heat, "photos")
    assert (code, out) == (0, "2 written, 0 failed: heat\n"), err
    assert sorted(path.name for path in (folder / "heat").iterdir()) == ["a.png", "b.png"]
    before = (folder / "heat/a.png").read_bytes()
    code, _, err = run(capsys, *heat, "photos/a.png")
    assert code == 4 and "heat/a.png" in err and "--overwrite" in err
    assert (folder / "heat/a.png").read_bytes() == before
    code, _, err = run(capsys, *heat, "photos/a.png", "--mask", "truth.png", "--overwrite")
    assert code == 0, err
    assert (folder / "heat/a.png").read_bytes() != before


def test_attention(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "photos/c.jpg").write_bytes(b"")
    attention = ["figure", "attention", "runs/mine", "--device", "cpu"]
    code, out, err = run(capsys, *attention, "photos", "--json")
    assert code == 3 and "photos/c.jpg" in err.splitlines()[-1]
    entries = json.loads(out)["images"]
    assert [entry["image"] for entry in entries] == ["photos/a.png", "photos/b.jpg"]
    assert entries[0]["near_pixels"] > 100
    assert sorted(path.name for path in (folder / "attention").iterdir()) == ["a.png", "b.png"]
    code, out, err = run(capsys, *attention, "photos/a.png", "--out", "other")
    assert code == 0, err
    line, last = out.splitlines()
    assert line.startswith("photos/a.png: ")
    assert f"{entries[0]['near']:.3f}" in line and f"{entries[0]['elsewhere']:.3f}" in line
    assert last == "1 written, 0 failed: other"


def test_sampling(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, err = run(capsys, "figure", "sampling", "--rates", "2,7")
    assert code == 0, err
    assert "9 of 225" in out and "225 of 225" in out
    assert out.endswith("written: sampling.png\n")
    code, out, err = run(capsys, "figure", "sampling", "runs/mine", "--json", "--overwrite")
    assert code == 0, err
    found = [(module["name"], module["branches"][0]["rate"]) for module in json.loads(out)]
    assert found == [("P2: SeEM", 1), ("P3: SeEM", 3), ("P4: SeEM-FS", 7)]


def test_panels(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    # The name of a run folder of an ablation has a "=", as settings do.
    save_small(folder / "ablations/p_out=16-seed-0/model.safetensors", "baseline")
    panels = ["figure", "panels", "ablations/p_out=16-seed-0", "runs/mine", "--device", "cpu"]
    data = ["data.kind=shapes", "data.size=48", "data.count=20", "--count", "1"]
    images = ["--images", "photos/a.png", "--images", "photos/b.jpg"]
    code, out, err = run(capsys, *panels, *data)
    assert (code, out) == (0, "written: panels.png\n"), err
    code, out, err = run(capsys, *panels, *images, "--out", "own.png")
    assert (code, out) == (0, "written: own.png\n"), err
    # A network of the user's own needs its factory; the other models do not get it.
    own = ["own.safetensors", "--factory", OWN, "--overwrite"]
    code, out, err = run(capsys, *panels, *own, *images)
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["heat", "nothing", "photos"], 4, "nothing"),
        (["heat", "runs/mine", "none.png"], 4, "none.png"),
        (["heat", "runs/mine", "truth.txt"], 4, "truth.txt"),
        (["heat", "runs/mine"], 2, "Missing argument"),
        (["heat", "runs/mine", "photos", "--mask", "truth.png"], 2, "--mask"),
        (["heat", "runs/mine", "photos/a.png", "--mask", "none.png"], 4, "none.png"),
        (["heat", "runs/mine", "photos/a.png", "--device", "tpu"], 2, "device tpu"),
        (["heat", "runs/mine", "photos/a.png", "--out", "truth.txt"], 4, "truth.txt"),
        (["heat", "own.safetensors", "photos/a.png"], 2, "own.safetensors"),
        (["attention", "own.safetensors", "photos/a.png"], 2, "own.safetensors"),
        (["attention", "plain.safetensors", "photos/a.png"], 2, "plain.safetensors"),
        (["attention", "truth.txt", "photos/a.png"], 4, "truth.txt"),
        (["sampling", "own.safetensors"], 2, "own.safetensors"),
        (["sampling", "plain.safetensors"], 2, "plain.safetensors"),
        (["sampling", "--rates", "seven"], 2, "--rates seven"),
        (["sampling", "--rates", "0"], 2, "1 to 100"),
        (["sampling", "--out", "a.jpg"], 2, ".png"),
        (["panels", "data.kind=shapes"], 2, "model"),
        (["panels", "runs/mine"], 2, "belongs to no run"),
        (["panels", "runs/mine", "--recipe", "shapes", "--split", "vla"], 2, "vla"),
        (["panels", "runs/mine", "--images", "photos", "data.kind=shapes"], 2, "--images"),
        (["panels", "own.safetensors", "--images", "photos"], 2, "--factory"),
    ],
)
def test_wrong_usage_writes_nothing(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str], code: int, message: str
) -> None:
    before = sorted(folder.rglob("*"))
    found, _, err = run(capsys, "figure", *arguments)
    assert found == code, err
    assert message in err.strip().splitlines()[-1]
    assert err.strip().splitlines()[-1].startswith("seenet: ")
    assert sorted(folder.rglob("*")) == before
