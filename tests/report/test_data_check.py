"""The page of `seenet data check`, and what the command prints and returns."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.settings import DataSettings
from seenet.data.check.inspection import inspect
from seenet.report.data_check import SHOWN, STRANGE, write_page
from tests.cli.test_main import run
from tests.data.planting import ERRORS, plant


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted")
    plant(root, 80, len(ERRORS))
    return root


def test_page(planted: Path, tmp_path: Path) -> None:
    settings = DataSettings(kind="folder", root=planted)
    inspection = inspect(settings, 1)
    page = write_page(inspection, settings, tmp_path).read_text(encoding="utf-8")
    assert all(Path(error.file).name in page for error in inspection.errors)
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<img") > len(ERRORS) // 2
    report = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert report["error_count"] == len(inspection.errors) == len(ERRORS)


def test_many_of_one_kind_are_listed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number in range(SHOWN + 5):
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(
            tmp_path / "images" / f"{number:02d}.png"
        )
        Image.new("L", (8, 6), 9).save(tmp_path / "masks" / f"{number:02d}.png")
    (tmp_path / "val.txt").write_text("00\n")
    (tmp_path / "seenet.yaml").write_text("decode: index\nval: val.txt\nclasses: [a, b]\n")
    settings = DataSettings(kind="folder", root=tmp_path, val=None)
    page = write_page(inspect(settings), settings, tmp_path / "out").read_text(encoding="utf-8")
    assert page.count("<section") == SHOWN
    assert "4 more without pictures" in page
    assert ",".join(map(str, STRANGE)) in page


def test_command(planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "check", "folder-lite0", f"data.root={planted}"]
    code, out, err = run(capsys, *arguments, "--json", "--out", str(tmp_path / "page"))
    assert code == 6
    assert f"seenet: {len(ERRORS)} errors in" in err
    assert json.loads(out)["error_count"] == len(ERRORS)
    assert (tmp_path / "page" / "index.html").is_file()
    code, _, err = run(capsys, *arguments, "--out", str(tmp_path / "page"))
    assert (code, err.count("\n")) == (4, 1)
    assert "--overwrite" in err
    code, out, err = run(capsys, *arguments)
    assert code == 6
    assert "to fix 1 (leak)" in out
    assert len(err.strip().splitlines()[-1]) < 400
    code, _, err = run(capsys, "data", "check", "shapes", "data.size=48", "data.count=3")
    assert code == 0, err
