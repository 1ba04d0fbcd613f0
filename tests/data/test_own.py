"""A data set of the user's own: opened as ours are, and looked at before anything is made of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seenet.core.errors import DataError, UsageError
from seenet.core.images import read_ids
from seenet.core.labels import LabelSet
from seenet.core.recipe_files import load_recipe
from seenet.core.settings import DataSettings
from seenet.data import Split, list_split, open_split
from seenet.data.check.inspection import inspect
from seenet.data.check.scan import check_split
from seenet.data.shapes import ShapesSplit
from seenet.data.split import file_split
from tests.data.pictures import picture

LABELS = LabelSet("toy", ("ground", "thing"), ((0, 0, 0), (9, 9, 9)))


def as_read(path: Path) -> np.ndarray:
    return read_ids(path)


def in_colour(path: Path) -> np.ndarray:
    return np.zeros((6, 8, 3), np.uint8)


def as_floats(path: Path) -> np.ndarray:
    return read_ids(path) / 255


def failing(path: Path) -> np.ndarray:
    raise KeyError(path.name)


def files(settings: DataSettings, which: str, decode: Any = as_read) -> Split:
    names = ("a", "b")
    root = settings.root or Path()
    pairs = [(name, root / which / f"{name}.jpg", root / which / f"{name}.png") for name in names]
    return file_split(f"toy/{which}", LABELS, pairs, decode, empty="")


def drawn(settings: DataSettings, which: str) -> Split:
    return ShapesSplit("val", 5, settings.size)


def none_there(settings: DataSettings, which: str) -> Split:
    return ShapesSplit("val", 0, settings.size)


def says_no(settings: DataSettings, which: str) -> Split:
    raise DataError(f"{settings.root}: locked")


def no_split(settings: DataSettings, which: str) -> object:
    return {"name": which}


def no_labels(settings: DataSettings, which: str) -> object:
    split = files(settings, which)
    object.__setattr__(split, "labels", ["ground", "thing"])
    return split


def colour(settings: DataSettings, which: str) -> Split:
    return files(settings, which, in_colour)


def floats(settings: DataSettings, which: str) -> Split:
    return files(settings, which, as_floats)


def broken(settings: DataSettings, which: str) -> Split:
    return files(settings, which, failing)


def of(function: Any, root: Path | None = None) -> DataSettings:
    return DataSettings(kind=f"{__name__}:{function.__name__}", root=root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for which in ("train", "val"):
        for place, name in enumerate(("a", "b")):
            picture(tmp_path / which / f"{name}.jpg", np.full((6, 8, 3), 40 * place, np.uint8))
            picture(tmp_path / which / f"{name}.png", np.full((6, 8), place, np.uint8))
    return tmp_path


def test_it_is_opened_as_ours_are(root: Path) -> None:
    split = open_split(of(files, root), "val")
    assert (split.name, len(split), split.labels) == ("toy/val", 2, LABELS)
    assert check_split(split) == [{0: 48}, {1: 48}]  # type: ignore[arg-type]
    assert split.stamp(0) != split.stamp(1)
    assert open_split(of(drawn), "whatever").name == "shapes/val"


def test_files_that_are_not_there_are_found_as_of_ours(root: Path) -> None:
    (root / "val" / "a.png").unlink()
    settings = of(files, root)
    assert len(list_split(settings, "val")) == 2
    with pytest.raises(DataError, match=r"a\.png: no mask for a\.jpg"):
        open_split(settings, "val")
    assert [found.kind for found in inspect(settings, 1).errors].count("missing") == 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            no_split,
            r"gave a dict without name, labels, key, .*expected a seenet\.data\.split\.Split",
        ),
        (no_labels, r"its labels are a list, expected a seenet\.core\.labels\.LabelSet"),
        (colour, r"mask \(6, 8, 3\) uint8; expected H x W x 3 uint8 and H x W integers"),
        (floats, r"mask \(6, 8\) float64"),
        (broken, r"failed with KeyError: 'a\.png'"),
    ],
)
def test_what_is_no_split_is_refused_at_the_door(root: Path, function: Any, message: str) -> None:
    settings = of(function, root)
    with pytest.raises(UsageError, match=message) as caught:
        open_split(settings, "val")
    assert str(caught.value).startswith(f"data.kind={settings.kind}: ")
    assert "\n" not in str(caught.value)


def test_what_its_own_code_says_of_files_stays(root: Path) -> None:
    with pytest.raises(DataError, match=r"locked$"):
        open_split(of(says_no, root), "val")
    with pytest.raises(DataError, match="shapes/val: no pictures found"):
        open_split(of(none_there), "val")


@pytest.mark.parametrize("name", ["no.such.module:f", f"{__name__}:absent", f"{__name__}:LABELS"])
def test_what_cannot_be_imported_or_called(name: str) -> None:
    with pytest.raises(UsageError, match=f"data.kind={name}: (cannot be imported|not callable)"):
        open_split(DataSettings(kind=name), "val")


def test_its_name_in_a_recipe() -> None:
    assert load_recipe("shapes", ["data.kind=mine:open"]).data.kind == "mine:open"
    for wrong, said in (("shaeps", "nearest: shapes"), ("[voc]", "expected a name")):
        with pytest.raises(UsageError, match=rf"data\.kind: found .*{said}") as caught:
            load_recipe("shapes", [f"data.kind={wrong}"])
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="hold_out belongs to camvid-drives, not to mine:open"):
        load_recipe("shapes", ["data.kind=mine:open", "data.hold_out=0001TP"])
