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
    save_small(folder / "p_out=16-seed-0/model.safetensors", "baseline")
    own = create_model(factory=OWN, num_classes=SHAPES.num_classes)
    save_model(folder / "own.safetensors", own, SHAPES)
    for place in ("photos", "done"):
        (folder / place).mkdir()
        save_scene(folder / place / "a.png")
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


SHAPES_DATA = ["data.kind=shapes", "data.size=48", "data.count=20", "--count", "1"]


@pytest.mark.parametrize(
    ("arguments", "output", "files"),
    [
        (["heat", "runs/mine", "photos"], "2 written", ["heat/a.png", "heat/b.png"]),
        (["heat", "runs/mine", "photos/a.png", "--mask", "truth.png"], "1 written", ["heat/a.png"]),
        (["attention", "runs/mine", "photos", "--out", "out"], "2 written", ["out/a.png"]),
        (["sampling", "--rates", "2,7"], "225 of 225", ["sampling.png"]),
        (["sampling", "runs/mine", "--json"], '"P4: SeEM-FS"', ["sampling.png"]),
        # The name of a run folder of an ablation has a "=", as settings do.
        (["panels", "p_out=16-seed-0", "runs/mine", *SHAPES_DATA], "written", ["panels.png"]),
        (["panels", "runs/mine", "--images", "photos", "--out", "a.png"], "written", ["a.png"]),
        # The other models do not get the factory.
        (
            ["panels", "own.safetensors", "runs/mine", "--images", "photos", "--factory", OWN],
            "written",
            ["panels.png"],
        ),
    ],
)
def test_figures_are_written(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    arguments: list[str],
    output: str,
    files: list[str],
) -> None:
    device = [] if arguments[0] == "sampling" else ["--device", "cpu"]
    code, out, err = run(capsys, "figure", *arguments, *device)
    assert code == 0 and output in out, err
    for file in files:
        assert Image.open(folder / file).format == "PNG"


def test_a_bad_image_fails_alone(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "photos/c.jpg").write_bytes(b"")
    attention = ["figure", "attention", "runs/mine", "photos", "--json", "--device", "cpu"]
    code, out, err = run(capsys, *attention)
    assert code == 3 and "photos/c.jpg" in err.splitlines()[-1]
    entries = json.loads(out)["images"]
    assert [entry["image"] for entry in entries] == ["photos/a.png", "photos/b.jpg"]
    assert sorted(path.name for path in (folder / "attention").iterdir()) == ["a.png", "b.png"]


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
        (["heat", "runs/mine", "photos/a.png", "--out", "done"], 4, "--overwrite"),
        (["attention", "runs/mine", "photos/a.png", "--out", "done"], 4, "--overwrite"),
        (["sampling", "--out", "truth.png"], 4, "--overwrite"),
        (["panels", "runs/mine", "--images", "photos", "--out", "truth.png"], 4, "--overwrite"),
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
