"""Commands and Python code of the docs run as written, and pages agree with committed results."""

import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.cli import main
from seenet.data.shapes import SHAPES, ShapesSplit
from tests.prediction.bundles.red import CENTRES, write_red

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = [
    "model.backbone=resnet10t", "model.weights=null", "model.width=8", "model.p_out=16",
    "transforms.crop=64", "training.steps=2", "training.batch=2", "training.workers=0",
    "training.validate_every=0",
]  # fmt: skip
"""Settings added to a command with a recipe, so that it ends in seconds."""


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [line[1:] for line in lines if line and line[0] == "seenet"]


def test_readme_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "my_photos" / "images", tmp_path / "my_photos" / "masks", 12)
    write_images(tmp_path / "new_photos", 2)
    write_images(tmp_path / "src" / "seenet" / "photos", 1)
    write_camvid(tmp_path / "data" / "CamVid")
    write_images(tmp_path, 1).rename("street.jpg")
    names = {line[0] for line in commands()}
    assert {"predict", "train", "eval", "report", "data", "export"} <= names
    for line in commands():
        takes_recipe = line[0] == "train" or line[:2] == ["data", "show"]
        with pytest.raises(SystemExit) as caught:
            main([*line, *(SMALL if takes_recipe else [])])
        assert not caught.value.code, f"seenet {shlex.join(line)}: {capsys.readouterr().err}"
    assert (tmp_path / "runs" / "mine" / "report" / "index.html").is_file()
    assert len(list((tmp_path / "segmented" / "masks").iterdir())) == 2


def test_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path, 1).rename("street.jpg")
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "out" / "overlays" / "street.jpg").is_file()


def test_deploy_python_runs_without_seenet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_red(tmp_path / "street.onnx")
    Image.new("RGB", (20, 10), (round(CENTRES[2]), 0, 0)).save("street.jpg", quality=100)
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "seenet" not in re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)
    exec(compile(block, "deploy.md", "exec"), {})
    assert f"'{SHAPES.classes[2]}': 1.0" in capsys.readouterr().out
    assert Image.open("mask.png").convert("RGB").getcolors() == [(200, SHAPES.colours[2])]


def test_tables_of_results_are_generated_from_the_committed_files() -> None:
    tables = runpy.run_path(str(ROOT / "docs" / "results" / "tables.py"))
    page = tables["PAGE"].read_text(encoding="utf-8")
    assert tables["generated"]() in page, "run python docs/results/tables.py"


def write_pairs(
    images: Path, masks: Path, count: int, suffix: str = ".jpg", void: int = 255
) -> None:
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    split = ShapesSplit("train", count, 64)
    for index in range(count):
        image, mask = split.read(index)
        mask = np.where(mask == 255, void, mask).astype(np.uint8)
        Image.fromarray(image).save(images / f"{index:03d}{suffix}")
        Image.fromarray(mask).save(masks / f"{index:03d}.png")


def write_images(folder: Path, count: int) -> Path:
    """Write images and return the last one."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"{index}.jpg"
        Image.fromarray(ShapesSplit("val", 50, 64).image(index)).save(path)
    return path


def write_camvid(root: Path) -> None:
    for part in ("train", "val"):
        write_pairs(root / part, root / f"{part}annot", 4, ".png", void=11)
        line = f"/SegNet/CamVid/{part}/{{0:03d}}.png /SegNet/CamVid/{part}annot/{{0:03d}}.png\n"
        (root / f"{part}.txt").write_text("".join(line.format(index) for index in range(4)))
