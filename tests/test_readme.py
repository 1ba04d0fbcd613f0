"""The README's commands run as they stand there, in their order, on small data."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.cli import main
from seenet.data.shapes import ShapesSplit

README = Path(__file__).parents[1] / "README.md"
SMALL = [
    "model.backbone=resnet10t", "model.weights=null", "model.width=8", "model.p_out=16", "transforms.crop=64", "training.steps=2",
    "training.batch=2", "training.workers=0", "training.validate_every=0",
]  # fmt: skip
"""What a command that takes a recipe gets besides, so that it ends in seconds."""


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [line[1:] for line in lines if line and line[0] == "seenet"]


def test_the_commands_are_read() -> None:
    assert {"predict", "train", "eval", "report", "data", "export"} <= {
        line[0] for line in commands()
    }


def test_readme_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "my_photos" / "images", tmp_path / "my_photos" / "masks", 12)
    write_pictures(tmp_path / "new_photos", 2)
    write_pictures(tmp_path / "src" / "seenet" / "photos", 1)
    write_camvid(tmp_path / "data" / "CamVid")
    Image.fromarray(ShapesSplit("val", 50, 64).image(0)).save("street.jpg")
    for line in commands():
        takes_recipe = line[0] == "train" or line[:2] == ["data", "show"]
        with pytest.raises(SystemExit) as caught:
            main([*line, *(SMALL if takes_recipe else [])])
        assert not caught.value.code, f"seenet {shlex.join(line)}: {capsys.readouterr().err}"
    assert (tmp_path / "runs" / "mine" / "report" / "index.html").is_file()
    assert len(list((tmp_path / "segmented" / "masks").iterdir())) == 2


def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(ShapesSplit("val", 50, 64).image(0)).save("street.jpg")
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "out" / "overlays" / "street.jpg").is_file()


def write_pairs(images: Path, masks: Path, count: int, suffix: str = ".jpg") -> None:
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    split = ShapesSplit("train", count, 64)
    for index in range(count):
        image, mask = split.read(index)
        Image.fromarray(image).save(images / f"{index:03d}{suffix}")
        Image.fromarray(mask).save(masks / f"{index:03d}.png")


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(ShapesSplit("val", 50, 64).image(index)).save(folder / f"{index}.jpg")


def write_camvid(root: Path) -> None:
    for part in ("train", "val"):
        write_pairs(root / part, root / f"{part}annot", 4, ".png")
        for path in (root / f"{part}annot").iterdir():
            with Image.open(path) as mask:
                ids = np.array(mask)
            Image.fromarray(np.where(ids == 255, 11, ids).astype(np.uint8)).save(path)
        names = [
            f"/SegNet/CamVid/{part}/{index:03d}.png /SegNet/CamVid/{part}annot/{index:03d}.png"
            for index in range(4)
        ]
        (root / f"{part}.txt").write_text("\n".join(names) + "\n")
