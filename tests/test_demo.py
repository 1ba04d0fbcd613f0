"""The demo shows every bundled photograph, and continues after an interruption."""

import csv
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image

from seenet import demo
from seenet.core.errors import DataError

TINY = [
    "model.backbone=resnet10t", "model.weights=null", "model.width=8", "model.p_out=16",
    "data.size=48", "data.count=20", "transforms.crop=48", "training.steps=2", "training.batch=2",
    "training.workers=0", "training.validate_every=0",
]  # fmt: skip


def test_each_photograph_has_a_free_licence() -> None:
    photographs = demo.bundled_photographs()
    with (photographs[0].parent / "LICENCES.tsv").open(encoding="utf-8") as file:
        licences = {row["file"]: row["licence"] for row in csv.DictReader(file, delimiter="\t")}
    assert len(photographs) == 10
    assert licences.keys() == {path.name for path in photographs}
    assert set(licences.values()) == {"CC BY 2.0", "CC BY-SA 2.0"}


def test_a_folder_of_the_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(DataError, match=r"index\.html.*--out"):
        demo.run_demo(tmp_path, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_text() == "mine"


def test_demo_shows_photographs_first_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs = demo.bundled_photographs()[:2]
    monkeypatch.setattr(demo, "bundled_photographs", lambda: photographs)

    with monkeypatch.context() as patch:
        patch.setattr(demo, "train", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            demo.run_demo(tmp_path, device="cpu", overrides=TINY)
    page = tmp_path / "index.html"
    assert all(path.name in page.read_text() for path in photographs)

    result = demo.run_demo(tmp_path, device="cpu", overrides=TINY)
    assert 'href="shapes/report/index.html"' in page.read_text()
    assert (tmp_path / "shapes/report/index.html").is_file()
    assert f"{100 * result['miou']:.1f} %" in page.read_text()
    assert result["split"] == "test"
    for path in photographs:
        mask = tmp_path / "photos" / "masks" / f"{path.stem}.png"
        assert Image.open(mask).size == Image.open(path).size
    assert len(list((tmp_path / "scenes-predicted" / "masks").iterdir())) == demo.SCENES
    again = demo.run_demo(tmp_path, device="cpu", overrides=TINY)
    assert again["miou"] == result["miou"]
