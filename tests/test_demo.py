"""The demo: every bundled photograph is shown, and the whole path behind it can be interrupted."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from seenet import demo
from seenet.core.errors import DataError

TINY = [
    "model.backbone=resnet10t", "model.weights=null", "model.width=8", "model.p_out=16", "data.size=48", "data.count=20",
    "transforms.crop=48", "training.steps=2", "training.batch=2", "training.workers=0", "training.validate_every=0",
]  # fmt: skip


def test_each_photograph_has_its_licence() -> None:
    photographs = demo.bundled_photographs()
    with (photographs[0].parent / "LICENCES.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(photographs) == 10
    assert {row["file"] for row in rows} == {path.name for path in photographs}
    assert {row["licence"] for row in rows} == {"CC BY 2.0", "CC BY-SA 2.0"}


def test_a_folder_of_ones_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(
        DataError, match=r"holds index\.html and is no demo's folder; give a new or empty one"
    ):
        demo.run_demo(tmp_path, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"] and (
        tmp_path / "index.html"
    ).read_text() == "mine"


def test_demo_shows_photographs_first_and_goes_on_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs = demo.bundled_photographs()[:2]
    monkeypatch.setattr(demo, "bundled_photographs", lambda: photographs)
    out = tmp_path / "demo"

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            demo.run_demo(out, device="cpu", overrides=TINY)
    early = (out / "index.html").read_text()
    assert all(path.name in early for path in photographs)
    assert "goes on" in early

    report = demo.run_demo(out, device="cpu", overrides=TINY)
    assert report.page == out / "index.html"
    page = report.page.read_text()
    assert 'href="shapes/report/index.html"' in page
    assert f"{100 * report.result['miou']:.1f} %" in page
    assert (out / "shapes" / "report" / "index.html").is_file()
    assert report.result["split"] == "test"
    for path in photographs:
        with (
            Image.open(path) as image,
            Image.open(out / "photos" / "masks" / f"{path.stem}.png") as mask,
        ):
            assert mask.size == image.size
    assert len(list((out / "scenes-predicted" / "masks").iterdir())) == demo.SCENES
    assert demo.run_demo(out, device="cpu", overrides=TINY).result["miou"] == report.result["miou"]
