"""`seenet data check`: planted errors are found, nothing else is, and the summary is right."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.images import read_ids, read_image
from seenet.core.settings import DataSettings
from seenet.data.check.inspection import Finding, inspect
from seenet.data.check.summary import as_json, text
from tests.data.pictures import picture
from tests.data.planting import ERRORS, plant

ZERO_AND_255 = np.array([[0, 255]], np.uint8).repeat(4, 1).repeat(6, 0)


@pytest.mark.parametrize(
    ("pairs", "errors", "processes"),
    [(300, 3 * len(ERRORS), 1), pytest.param(5000, 500, 2, marks=pytest.mark.slow)],
)
def test_all_planted_errors_are_found(
    tmp_path: Path, pairs: int, errors: int, processes: int
) -> None:
    planted, notes = plant(tmp_path, pairs, errors)
    assert len(planted) == errors
    inspection = inspect(DataSettings(kind="folder", root=tmp_path), processes)
    found = [
        (Path(error.file).relative_to(tmp_path).as_posix(), error.kind)
        for error in inspection.errors
    ]
    assert Counter(found) == Counter(planted)
    noted = Counter(note.key for note in inspection.notes)
    assert {key: noted[key] for key in notes} == notes
    assert all(error.fix and "\n" not in error.message for error in inspection.errors)
    wrong = {error.key for error in inspection.errors}
    assert all(
        (what == "wrong") == (key in wrong)
        for verdict in inspection.splits
        for key, what in verdict.verdicts()
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight good pairs of 6 x 8 pixels, of two classes and void; six train."""
    rng = np.random.default_rng(0)
    for number in range(8):
        image = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture(tmp_path / "images" / f"{number}.png", image)
        mask = rng.choice(np.array([0, 1, 255], np.uint8), (6, 8))
        picture(tmp_path / "masks" / f"{number}.png", mask)
    (tmp_path / "val.txt").write_text("6\n7\n")
    (tmp_path / "seenet.yaml").write_text(
        "decode: index\nval: val.txt\nclasses: [ground, thing, never]\n"
    )
    return tmp_path


def errors_in(folder: Path, **settings: str) -> list[Finding]:
    return inspect(DataSettings(kind="folder", root=folder, **settings)).errors


def test_the_summary_agrees_with_slow_counting(folder: Path) -> None:
    settings = DataSettings(kind="folder", root=folder)
    inspection = inspect(settings)
    assert not inspection.errors
    summary = as_json(inspection, settings)["splits"][0]
    images = [read_image(folder / "images" / f"{n}.png").reshape(-1, 3) for n in range(6)]
    values = np.concatenate(images) / 255
    ids = np.concatenate([read_ids(folder / "masks" / f"{n}.png").ravel() for n in range(6)])
    pixels = [int((ids == label).sum()) for label in range(3)]
    np.testing.assert_allclose(summary["mean"], values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(summary["std"], values.std(0), rtol=1e-12)
    assert [entry["pixels"] for entry in summary["classes"]] == pixels
    assert summary["void_pixels"] == (ids == 255).sum()
    assert summary["unused"] == ["never"]
    shares = np.array(pixels[:2]) / (6 * 48)  # both classes are in each mask
    weights = [entry["median_frequency_weight"] for entry in summary["classes"]]
    np.testing.assert_allclose(weights, [*(np.median(shares) / shares), 0], rtol=1e-12)
    assert "no pixel of never" in text(inspection)


def test_ids_are_explained_by_the_whole_split(folder: Path) -> None:
    """A mask of 0 and 255 alone looks binary; the others show that 255 is void."""
    picture(folder / "masks" / "2.png", ZERO_AND_255)
    (folder / "seenet.yaml").write_text(
        "decode: index\nval: val.txt\nignore: 200\nclasses: [ground, thing]\n"
    )
    train = inspect(DataSettings(kind="folder", root=folder)).splits[0]
    (cure,) = train.cures()
    assert (cure.kind, cure.fix) == ("ids", "looks like void as 255; set `ignore: 255`")
    assert (cure.pixels, cure.times) == train.strange()[255]
    assert cure.times == 6


def test_a_foreground_that_would_be_ignored(folder: Path) -> None:
    """All masks are 0/255, and 255 is void. Beside masks where 255 is a rim it is no error."""
    picture(folder / "masks" / "0.png", ZERO_AND_255)
    assert not errors_in(folder)
    for number in range(8):
        mask = np.full((6, 8), 255, np.uint8) * (np.arange(8) > number // 2).astype(np.uint8)
        picture(folder / "masks" / f"{number}.png", mask)
    errors = errors_in(folder)
    assert {(error.kind, Path(error.file).name) for error in errors} == {
        ("mask-kind", f"{number}.png") for number in range(8)
    }
    assert "remap: {0: 0, 255: 1}" in errors[0].fix


@pytest.mark.parametrize(("lines", "kind"), [("", "empty-split"), ("nobody\n", "missing")])
def test_a_split_without_images(folder: Path, lines: str, kind: str) -> None:
    (folder / "val.txt").write_text(lines)
    assert [error.kind for error in errors_in(folder)] == [kind]
    (folder / "val.txt").unlink()
    with pytest.raises(DataError, match="no such list"):  # then train is unknown too
        errors_in(folder)


def test_masks_that_are_ignored_altogether(folder: Path) -> None:
    for number in (6, 7):
        picture(folder / "masks" / f"{number}.png", np.full((6, 8), 255, np.uint8))
    (error,) = errors_in(folder)
    assert (error.kind, error.split, error.key) == ("empty-split", f"{folder.name}/val", "")


def test_one_split_for_both(folder: Path) -> None:
    assert [error.kind for error in errors_in(folder, val="train")] == ["leak"]


def test_a_duplicate_with_another_mask(folder: Path) -> None:
    with Image.open(folder / "images" / "1.png") as image:
        image.save(folder / "images" / "5.bmp")
    (folder / "images" / "5.png").unlink()
    (error,) = errors_in(folder)
    assert error.kind == "duplicate" and "their masks differ" in error.message
    assert (Path(error.file).name, Path(error.other).name) == ("5.bmp", "1.png")


def test_drawn_data_is_good() -> None:
    inspection = inspect(DataSettings(kind="shapes", size=48, count=3))
    assert not inspection.errors
    assert inspection.splits[0].stats is not None
