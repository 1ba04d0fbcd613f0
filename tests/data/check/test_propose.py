"""The layouts that people have: what `data init` proposes for each opens, and splits as the layout says."""

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
from seenet.data.folder import read_description
from tests.data.pictures import picture


def pairs(folder: Path, *names: str, images: str = "images", masks: str = "masks", suffix: str = "") -> None:
    for name in names:
        picture(folder / images / f"{name}.jpg")
        picture(folder / masks / f"{name}{suffix}.png", np.array([[0, 1], [2, 0]], np.uint8).repeat(3, 0).repeat(4, 1))


def keys(folder: Path, which: str) -> list[str]:
    split = open_split(DataSettings(kind="folder", root=folder), which)
    return [split.key(index) for index in range(len(split))]


def test_names_of_folders_count_more_than_colours(tmp_path: Path) -> None:
    """Pictures of few colours and masks as JPEG are no reason to swap them, but to say what is wrong."""
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        for folder, pixels, suffix in (("images", noise // 128 * 100, "png"), ("masks", noise, "jpg")):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.{suffix}")
    with pytest.raises(DataError, match=r"masks/\d\.jpg: over 256 colours in the masks up to here"):
        propose(tmp_path)


def test_lists_that_are_there_are_taken(tmp_path: Path) -> None:
    pairs(tmp_path, *"abcdef")
    (tmp_path / "val.txt").write_text("b.jpg\nc\n")
    assert "val: val.txt\n" in write_proposal(tmp_path)
    assert (keys(tmp_path, "train"), keys(tmp_path, "val")) == (["a", "d", "e", "f"], ["b", "c"])
    (tmp_path / "seenet.yaml").unlink()
    (tmp_path / "train.txt").write_text("e\na\n")
    write_proposal(tmp_path)
    assert (keys(tmp_path, "train"), keys(tmp_path, "val")) == (["e", "a"], ["b", "c"])
    # Without a list for validation a share is held back, from training too.
    (tmp_path / "seenet.yaml").unlink()
    (tmp_path / "val.txt").unlink()
    (tmp_path / "train.txt").write_text("\n".join("abcdef"))
    assert "train: train.txt\nval: 0.2" in write_proposal(tmp_path)
    assert sorted(keys(tmp_path, "train") + keys(tmp_path, "val")) == list("abcdef")


def test_list_of_other_names_is_refused(tmp_path: Path) -> None:
    pairs(tmp_path, *"abc")
    (tmp_path / "val.txt").write_text("a\nimages/b.jpg\n")
    with pytest.raises(DataError, match=r"val\.txt: found images/b, no picture below .*images; expected one name a line, such as a"):
        write_proposal(tmp_path)
    assert not (tmp_path / "seenet.yaml").exists()


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("training", "validation")])
def test_parts_below_the_folders(tmp_path: Path, train: str, val: str) -> None:
    pairs(tmp_path, f"{train}/a", f"{train}/b", f"{val}/a", "test/c")
    text = write_proposal(tmp_path)
    assert f"train: images/{train}\nval: images/{val}\n" in text
    assert (keys(tmp_path, "train"), keys(tmp_path, "val")) == ([f"{train}/a", f"{train}/b"], [f"{val}/a"])
    # Pictures that come later belong where they lie.
    pairs(tmp_path, f"{val}/d")
    assert keys(tmp_path, "val") == [f"{val}/a", f"{val}/d"]


@pytest.mark.parametrize("below", [".", "data"])
def test_side_by_side(tmp_path: Path, below: str) -> None:
    pairs(tmp_path, "a", "b", "c", images=below, masks=below, suffix="_mask")
    text = write_proposal(tmp_path)
    assert text.startswith(f"images: {below}\nmasks: {below}\nmask_suffix: _mask\nval: 0.2")
    assert keys(tmp_path, "all") == ["a", "b", "c"]
    assert len(keys(tmp_path, "val")) + len(keys(tmp_path, "train")) == 3


def test_side_by_side_in_parts(tmp_path: Path) -> None:
    pairs(tmp_path, "train/a", "train/b", "val/a", images=".", masks=".", suffix="_mask")
    assert "images: .\n" in write_proposal(tmp_path)
    about = read_description(tmp_path / "seenet.yaml")
    assert (about.train, about.val) == (Path("train"), Path("val"))
    assert (keys(tmp_path, "train"), keys(tmp_path, "val")) == (["train/a", "train/b"], ["val/a"])


def test_parts_above_the_folders_are_told_what_is_expected(tmp_path: Path) -> None:
    for part in ("train", "val"):
        pairs(tmp_path, "a", "b", images=f"{part}/images", masks=f"{part}/masks")
    with pytest.raises(DataError) as caught:
        write_proposal(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: found train and val on its first level, expected pictures in images/train")
    pairs(tmp_path, "x", "y", images="train", masks="trainannot")
    with pytest.raises(DataError, match="found train and val on its first level"):
        write_proposal(tmp_path)


def test_pictures_beside_the_folder_of_masks_are_not_proposed(tmp_path: Path) -> None:
    pairs(tmp_path, "a", "b", images=".")
    with pytest.raises(DataError, match="found no folder of pictures beside a folder of masks"):
        write_proposal(tmp_path)


def test_other_pictures_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    pairs(tmp_path, *"abc")
    picture(tmp_path / "preview.png")
    picture(tmp_path / "preview.jpg")
    picture(tmp_path / "val" / "thumbnail.jpg")
    assert "images: images\nmasks: masks\n" in write_proposal(tmp_path)


def test_masks_of_32_bits_are_told_by_their_ids(tmp_path: Path) -> None:
    """Of folders whose names say nothing; as pictures they have no values."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for folder, pixels in (
            ("first", rng.integers(0, 3, (6, 8), dtype=np.int32)),
            ("second", rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.tif")
    assert propose(tmp_path).startswith("images: second\nmasks: first\n")


def test_proposal_opens(own_folder: Path) -> None:
    write_proposal(own_folder)
    train, val = (open_split(DataSettings(kind="folder", root=own_folder), which) for which in ("train", "val"))
    assert len(train) + len(val) == 20
    assert len(val) > 0
    assert train.labels.num_classes == 3
    check_split(train)
    with pytest.raises(DataError, match="exists already"):
        write_proposal(own_folder)


@pytest.mark.parametrize("kind", ["colours", "zero and 255", "other ids", "a gap", "palette", "16 bit", "grey pictures"])
def test_every_proposal_opens(tmp_path: Path, kind: str) -> None:
    ids = np.array([[0, 1], [2, 1]]).repeat(3, 0).repeat(4, 1)
    for number in range(8):
        path = tmp_path / "masks" / f"yes{number}_gt.png"
        picture(tmp_path / "off" / f"yes{number}.png")
        if kind == "palette":
            path.parent.mkdir(exist_ok=True)
            write_mask(path, ids, CAMVID11)
        elif kind == "colours":
            picture(path, np.array([(0, 0, 0), (128, 64, 128), (0, 0, 142)], np.uint8)[ids])
        else:
            table = {"zero and 255": (0, 255, 0), "other ids": (7, 90, 200), "a gap": (0, 1, 3), "16 bit": (0, 999, 5000)}.get(
                kind, (0, 1, 2)
            )
            picture(path, np.array(table, np.uint16 if kind == "16 bit" else np.uint8)[ids])
        if kind == "grey pictures":
            Image.open(tmp_path / "off" / f"yes{number}.png").convert("L").save(tmp_path / "off" / f"yes{number}.png")
    text = propose(tmp_path)
    (tmp_path / "seenet.yaml").write_text(text)
    split = open_split(DataSettings(kind="folder", root=tmp_path), "all")
    check_split(split)
    mask = split.read(0)[1]
    found = {"zero and 255": 2}.get(kind, 3)
    assert len(split) == 8
    assert len(np.unique(mask)) == found
    assert mask.max() < split.labels.num_classes == found + (kind == "a gap")


def test_nothing_to_propose(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match="no folder of pictures beside a folder of masks"):
        propose(tmp_path)
    for name in ("images", "masks"):
        picture(tmp_path / name / "b.png", np.random.default_rng(3).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    picture(tmp_path / "masks" / "a.png", np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(DataError, match="over 256 colours"):
        propose(tmp_path)
