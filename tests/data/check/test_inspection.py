"""`seenet data check`: all that was planted is found, nothing else is, and the summary agrees with slow counting."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.images import read_ids, read_image
from seenet.core.settings import DataSettings
from seenet.data.check.inspection import Inspection, inspect
from seenet.data.check.summary import as_json, text
from tests.data.pictures import picture
from tests.data.planting import ERRORS, plant


def found_in(root: Path, processes: int) -> tuple[Inspection, Counter[tuple[str, str]]]:
    found = inspect(DataSettings(kind="folder", root=root), processes)
    return found, Counter((Path(error.file).relative_to(root).as_posix(), error.kind) for error in found.errors)


def assert_all_found(root: Path, pairs: int, errors: int, processes: int) -> None:
    planted, notes = plant(root, pairs, errors)
    assert len(planted) == errors
    inspection, found = found_in(root, processes)
    assert found == Counter(planted)
    noted = Counter(note.key for note in inspection.notes)
    assert {key: noted[key] for key in notes} == notes
    assert all(error.fix and "\n" not in error.message for error in inspection.errors)
    wrong = {error.key for error in inspection.errors}
    assert all((what == "wrong") == (key in wrong) for verdict in inspection.splits for key, what in verdict.verdicts())


def test_errors_among_pairs(tmp_path: Path) -> None:
    assert_all_found(tmp_path, 300, 3 * len(ERRORS), processes=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_500_errors_among_5000_pairs(tmp_path: Path, seed: int) -> None:
    assert_all_found(tmp_path, 5000, 500, processes=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight good pairs of 6 x 8 pixels, two classes and void; six train."""
    rng = np.random.default_rng(0)
    for number in range(8):
        picture(tmp_path / "images" / f"{number}.png", rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        picture(tmp_path / "masks" / f"{number}.png", rng.choice(np.array([0, 1, 255], np.uint8), (6, 8)))
    (tmp_path / "val.txt").write_text("6\n7\n")
    (tmp_path / "seenet.yaml").write_text("decode: index\nval: val.txt\nclasses: [ground, thing, never]\n")
    return tmp_path


def test_summary_agrees_with_slow_counting(folder: Path) -> None:
    inspection = inspect(DataSettings(kind="folder", root=folder))
    assert not inspection.errors
    summary = as_json(inspection, DataSettings(kind="folder", root=folder))["splits"][0]
    values = np.concatenate([read_image(folder / "images" / f"{n}.png").reshape(-1, 3) for n in range(6)]).astype(np.float64) / 255
    ids = np.concatenate([read_ids(folder / "masks" / f"{n}.png").ravel() for n in range(6)])
    np.testing.assert_allclose(summary["mean"], values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(summary["std"], values.std(0), rtol=1e-12)
    assert [entry["pixels"] for entry in summary["classes"]] == [(ids == label).sum() for label in range(3)]
    assert summary["void_pixels"] == (ids == 255).sum()
    assert summary["unused"] == ["never"]
    shares = [(ids == label).sum() / (6 * 48) for label in range(2)]  # both stand in each mask
    expected = [np.median(shares) / share for share in shares]
    np.testing.assert_allclose([entry["median_frequency_weight"] for entry in summary["classes"]], [*expected, 0], rtol=1e-12)
    assert "no pixel of never" in text(inspection)


def test_ids_are_explained_by_the_whole_split(folder: Path) -> None:
    """A mask of 0 and 255 alone looks binary; the others say that 255 is void."""
    picture(folder / "masks" / "2.png", np.array([[0, 255]], np.uint8).repeat(4, 1).repeat(6, 0))
    (folder / "seenet.yaml").write_text("decode: index\nval: val.txt\nignore: 200\nclasses: [ground, thing]\n")
    train = inspect(DataSettings(kind="folder", root=folder)).splits[0]
    assert [(cure.kind, cure.fix) for cure in train.cures()] == [("ids", "looks like void as 255; set `ignore: 255`")]
    assert train.cures()[0].pixels == train.strange()[255][0] > 0
    assert train.strange()[255][1] == train.cures()[0].times == 6


def test_a_foreground_that_would_be_ignored(folder: Path) -> None:
    """0/255 masks where 255 is void: the ids are right, the kind is not. Beside masks where 255 is a rim nothing can be said."""
    picture(folder / "masks" / "0.png", np.array([[0, 255]], np.uint8).repeat(4, 1).repeat(6, 0))
    assert not inspect(DataSettings(kind="folder", root=folder)).errors
    for number in range(8):
        picture(folder / "masks" / f"{number}.png", np.full((6, 8), 255, np.uint8) * (np.arange(8) > number // 2).astype(np.uint8))
    errors = inspect(DataSettings(kind="folder", root=folder)).errors
    assert {(error.kind, Path(error.file).name) for error in errors} == {("mask-kind", f"{number}.png") for number in range(8)}
    assert "remap: {0: 0, 255: 1}" in errors[0].fix


@pytest.mark.parametrize("lines", ["", "nobody\n"])
def test_a_split_without_pictures(folder: Path, lines: str) -> None:
    (folder / "val.txt").write_text(lines)
    (error,) = inspect(DataSettings(kind="folder", root=folder)).errors
    assert error.kind == ("missing" if lines else "empty-split")
    (folder / "val.txt").unlink()
    with pytest.raises(DataError, match="no such list"):  # without it nobody knows what trains
        inspect(DataSettings(kind="folder", root=folder))


def test_masks_that_are_ignored_altogether(folder: Path) -> None:
    for number in (6, 7):
        picture(folder / "masks" / f"{number}.png", np.full((6, 8), 255, np.uint8))
    (error,) = inspect(DataSettings(kind="folder", root=folder)).errors
    assert (error.kind, error.split, error.key) == ("empty-split", f"{folder.name}/val", "")


def test_nothing_to_open_is_bad_data(folder: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        inspect(DataSettings(kind="camvid", root=folder / "nowhere"))


def test_one_split_for_both(folder: Path) -> None:
    (error,) = inspect(DataSettings(kind="folder", root=folder, val="train")).errors
    assert error.kind == "leak"


def test_a_picture_that_stands_twice_with_another_mask(folder: Path) -> None:
    with Image.open(folder / "images" / "1.png") as image:
        image.save(folder / "images" / "5.bmp")
    (folder / "images" / "5.png").unlink()
    (error,) = inspect(DataSettings(kind="folder", root=folder)).errors
    assert (error.kind, Path(error.file).name, Path(error.other).name) == ("duplicate", "5.bmp", "1.png")
    assert "their masks differ" in error.message


def test_drawn_data(tmp_path: Path) -> None:
    inspection = inspect(DataSettings(kind="shapes", size=48, count=3))
    assert not inspection.errors
    assert inspection.splits[0].stats() is not None


def test_json_is_plain(folder: Path) -> None:
    (folder / "masks" / "3.png").write_bytes(b"")
    settings = DataSettings(kind="folder", root=folder)
    report = json.loads(json.dumps(as_json(inspect(settings), settings)))
    assert report["verdict"] == report["splits"][0]["verdict"] == "wrong"
    assert report["splits"][1]["verdict"] == "good"
    assert Counter(entry["verdict"] for entry in report["files"]) == {"wrong": 1, "good": 7}
    assert report["errors"][0]["kind"] == "empty"
