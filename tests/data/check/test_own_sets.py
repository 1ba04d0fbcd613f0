"""Published data sets go from their folder to a trained model with no file moved."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.commands import run
from tests.data.layouts import IGNORED, Truth
from tests.data.reading import good

# Pictures, their folder of masks, what exchanges a picture's name for its mask's, and splits.
SETS = {
    "nuclei": ("images", "masks", ("", ""), None),
    "cracks": ("images", "masks", (".jpg", ".png"), None),
    "idd-lite": ("leftImg8bit", "gtFine", ("_image.jpg", "_label.png"), ("train", "val")),
}


@pytest.fixture(params=SETS)
def own_set(request: pytest.FixtureRequest, shared: Path, tmp_path: Path) -> tuple[Path, Truth]:
    """Link the files of a data set into a folder; return it and the truth of its masks."""
    source = shared / "data" / "own" / request.param
    if not source.is_dir():
        pytest.skip(f"no data set at {source}")
    pictures, masks, exchange, splits = SETS[request.param]
    root = tmp_path / request.param
    for path in source.rglob("*"):
        link = root / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            link.symlink_to(path)
    truth = Truth()
    for path in sorted((source / pictures).rglob("*.*")):
        below = path.relative_to(source / pictures)
        mask = source / masks / below.as_posix().replace(*exchange)
        name = f"{pictures}/{below.as_posix()}"
        stored = np.asarray(Image.open(mask)).astype(int)
        if splits:
            truth.split[name] = below.parts[0]
            stored[stored == 255] = IGNORED
        truth.masks[name] = stored
    return root, truth


def test_from_folder_to_pairs(own_set: tuple[Path, Truth], capsys: pytest.CaptureFixture) -> None:
    root, truth = own_set
    before = {path for path in root.rglob("*") if path.is_file()}
    code, out, err = run(capsys, "data", "init", root)
    assert code == 0, out + err
    good(capsys, root, truth)
    assert before <= set(root.rglob("*"))


@pytest.mark.slow
def test_from_folder_to_model(own_set: tuple[Path, Truth], capsys: pytest.CaptureFixture) -> None:
    root, _ = own_set
    small = ["training.steps=2", "training.batch=2", "transforms.crop=64"]
    model = root.parent / "run"
    for command in (
        ["data", "init", root],
        ["data", "check", "folder-lite0", f"data.root={root}"],
        ["train", "folder-lite0", f"data.root={root}", "--out", model, *small],
    ):
        code, out, err = run(capsys, *command)
        assert code == 0, out + err
    assert list(model.glob("*.safetensors"))
