"""The page of `seenet data check`, and the output and exit code of the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.settings import DataSettings
from seenet.data.check.inspection import inspect
from seenet.report.data_check import SHOWN, write_page
from tests.cli.commands import run
from tests.data.planting import ERRORS, plant
from tests.report.pages import Page


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted")
    plant(root, 80, len(ERRORS))
    return root


def test_every_planted_error_is_on_the_page(planted: Path, tmp_path: Path) -> None:
    settings = DataSettings(kind="folder", root=planted)
    inspection = inspect(settings, 1)
    found = Page(write_page(inspection, settings, tmp_path).read_text(encoding="utf-8"))
    assert all(Path(error.file).name in found.text for error in inspection.errors)
    assert len(found.images) > len(ERRORS) // 2
    report = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert report["error_count"] == len(inspection.errors) == len(ERRORS)


def test_many_errors_of_a_kind_and_a_split_that_cannot_be_opened(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number in range(SHOWN + 5):
        image = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{number:02d}.png")
        Image.new("L", (8, 6), 9).save(tmp_path / "masks" / f"{number:02d}.png")
    (tmp_path / "val.txt").write_text("")
    (tmp_path / "seenet.yaml").write_text("decode: index\nval: val.txt\nclasses: [a, b]\n")
    settings = DataSettings(kind="folder", root=tmp_path)
    path = write_page(inspect(settings), settings, tmp_path / "out")
    found = Page(path.read_text(encoding="utf-8"))
    # The first errors of train, and that val is empty.
    assert found.tags.count("section") == SHOWN + 1
    assert "5 more without images" in found.text


def test_command(planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "check", "folder-lite0", f"data.root={planted}"]
    page = tmp_path / "page"
    code, out, err = run(capsys, *arguments, "--json", "--out", str(page))
    assert (code, json.loads(out)["error_count"]) == (6, len(ERRORS)), err
    assert (page / "index.html").is_file()
    assert run(capsys, *arguments, "--out", str(page))[0] == 4
    code, out, err = run(capsys, *arguments)
    assert code == 6 and "(leak)" in out
    assert len(err.strip().splitlines()[-1]) < 400
    assert run(capsys, "data", "check", "shapes", "data.size=48", "data.count=3")[0] == 0
