"""Proposals of `data init` for common layouts open, and split as the layout says."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.images import write_mask
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.camvid import CAMVID11
from seenet.data.check.propose import propose, write_proposal
from seenet.data.check.scan import check_split
from tests.data.pictures import pairs, picture

IDS = np.array([[0, 1], [2, 1]], np.uint8).repeat(3, 0).repeat(4, 1)
NO_PAIR = "found no folder of pictures beside a folder of masks"


def keys(folder: Path, which: str) -> list[str]:
    split = open_split(DataSettings(kind="folder", root=folder), which)
    return [split.key(index) for index in range(len(split))]


def splits(folder: Path) -> tuple[list[str], list[str]]:
    return keys(folder, "train"), keys(folder, "val")


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"val.txt": "b.jpg\nc\n"}, ("adef", "bc")),
        ({"val.txt": "b.jpg\nc\n", "train.txt": "e\na\n"}, ("ea", "bc")),
    ],
)
def test_existing_lists_are_used(
    tmp_path: Path, lists: dict[str, str], expected: tuple[str, str]
) -> None:
    pairs(tmp_path, *"abcdef", mask=IDS)
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    assert "val: val.txt\n" in write_proposal(tmp_path)
    assert splits(tmp_path) == tuple(map(list, expected))


def test_without_a_list_for_validation_a_share_is_held_back(tmp_path: Path) -> None:
    pairs(tmp_path, *"abcdef", mask=IDS)
    (tmp_path / "train.txt").write_text("\n".join("abcdef"))
    assert "train: train.txt\nval: 0.2" in write_proposal(tmp_path)
    train, val = splits(tmp_path)
    assert val and sorted(train + val) == list("abcdef")


def test_a_list_of_other_names_is_refused(tmp_path: Path) -> None:
    pairs(tmp_path, *"abc", mask=IDS)
    (tmp_path / "val.txt").write_text("a\nimages/b.jpg\n")
    expected = r"val\.txt: found images/b, no picture below .*images; expected one name a line"
    with pytest.raises(DataError, match=expected):
        write_proposal(tmp_path)
    assert not (tmp_path / "seenet.yaml").exists()


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("training", "validation")])
def test_split_folders_below_images_and_masks(tmp_path: Path, train: str, val: str) -> None:
    pairs(tmp_path, f"{train}/a", f"{train}/b", f"{val}/a", "test/c", mask=IDS)
    assert f"train: images/{train}\nval: images/{val}\n" in write_proposal(tmp_path)
    assert splits(tmp_path) == ([f"{train}/a", f"{train}/b"], [f"{val}/a"])
    # Images that are added later belong to the folder where they are.
    pairs(tmp_path, f"{val}/d", mask=IDS)
    assert keys(tmp_path, "val") == [f"{val}/a", f"{val}/d"]


@pytest.mark.parametrize("below", [".", "data"])
def test_images_and_masks_in_one_folder(tmp_path: Path, below: str) -> None:
    pairs(tmp_path, *"abc", mask=IDS, images=below, masks=below, suffix="_mask")
    text = write_proposal(tmp_path)
    assert text.startswith(f"images: {below}\nmasks: {below}\nmask_suffix: _mask\nval: 0.2")
    train, val = splits(tmp_path)
    assert sorted(train + val) == keys(tmp_path, "all") == ["a", "b", "c"]


def test_images_and_masks_in_the_folder_of_their_split(tmp_path: Path) -> None:
    names = ("train/a", "train/b", "val/a")
    pairs(tmp_path, *names, mask=IDS, images=".", masks=".", suffix="_mask")
    assert "train: train\nval: val\n" in write_proposal(tmp_path)
    assert splits(tmp_path) == (["train/a", "train/b"], ["val/a"])


@pytest.mark.parametrize(
    ("layouts", "message"),
    [
        (
            [(f"{part}/images", f"{part}/masks") for part in ("train", "val")],
            "found train and val on its first level, expected pictures in images/train",
        ),
        ([("train", "trainannot"), ("val", "valannot")], "found train and val on its first level"),
        ([(".", "masks")], NO_PAIR),
    ],
)
def test_other_layouts_are_told_what_is_expected(
    tmp_path: Path, layouts: list[tuple[str, str]], message: str
) -> None:
    for images, masks in layouts:
        pairs(tmp_path, "a", "b", mask=IDS, images=images, masks=masks)
    with pytest.raises(DataError, match=f"{tmp_path}: {message}"):
        write_proposal(tmp_path)


def test_other_images_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    pairs(tmp_path, *"abc", mask=IDS)
    for name in ("preview.png", "preview.jpg", "val/thumbnail.jpg"):
        picture(tmp_path / name)
    assert "images: images\nmasks: masks\n" in write_proposal(tmp_path)


def test_32_bit_masks_in_a_folder_of_any_name(tmp_path: Path) -> None:
    """As images they cannot be read; they have fewer values."""
    for name in ("a", "b"):
        picture(tmp_path / "first" / f"{name}.tif", IDS.astype(np.int32))
        picture(tmp_path / "second" / f"{name}.tif", noise(0))
    assert propose(tmp_path).startswith("images: second\nmasks: first\n")


def test_names_of_folders_count_more_than_colours(tmp_path: Path) -> None:
    """Images of few colours and JPEG masks are not swapped; the masks are refused."""
    for number in range(3):
        picture(tmp_path / "images" / f"{number}.png", noise(number) // 128 * 100)
        picture(tmp_path / "masks" / f"{number}.jpg", noise(number))
    with pytest.raises(DataError, match=r"masks/\d\.jpg: over 256 colours in the masks up to here"):
        propose(tmp_path)


def table(*values: int, dtype: type = np.uint8) -> np.ndarray:
    return np.array(values, dtype)[IDS]


@pytest.mark.parametrize(
    ("mask", "found", "classes"),
    [
        (np.array([(0, 0, 0), (128, 64, 128), (0, 0, 142)], np.uint8)[IDS], 3, 3),
        (table(0, 255, 0), 2, 2),
        (table(7, 90, 200), 3, 3),
        (table(0, 1, 3), 3, 4),
        (table(0, 999, 5000, dtype=np.uint16), 3, 3),
        (None, 3, 3),
    ],
    ids=["colours", "zero and 255", "other ids", "a gap", "16 bits", "palette"],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_proposal_opens(
    tmp_path: Path, mask: np.ndarray | None, found: int, classes: int, mode: str
) -> None:
    for number in range(8):
        path = tmp_path / "masks" / f"yes{number}_gt.png"
        picture(path, IDS if mask is None else mask)
        if mask is None:
            write_mask(path, IDS, CAMVID11)
        image = np.asarray(Image.fromarray(noise(number)[:6, :8]).convert(mode))
        picture(tmp_path / "off" / f"yes{number}.png", image)
    write_proposal(tmp_path)
    split = open_split(DataSettings(kind="folder", root=tmp_path), "all")
    check_split(split)
    assert (len(split), split.labels.num_classes) == (8, classes)
    ids = np.unique(split.read(0)[1])
    assert len(ids) == found and ids.max() < classes


def test_void_is_proposed_as_ignored(own_folder: Path) -> None:
    write_proposal(own_folder)
    split = open_split(DataSettings(kind="folder", root=own_folder), "train")
    assert (split.labels.num_classes, split.labels.ignore) == (3, 255)
    with pytest.raises(DataError, match="exists already"):
        write_proposal(own_folder)


def test_nothing_to_propose(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match=NO_PAIR):
        propose(tmp_path)
