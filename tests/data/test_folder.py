"""Folders of one's own: which pictures a split has, what `seenet.yaml` may say, and what is said where it is wrong."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from seenet.core.errors import DataError, UsageError
from seenet.core.settings import DataSettings
from seenet.data import Split, open_split
from seenet.data.check.scan import check_split
from seenet.data.folder import by_stem, in_share, read_description
from tests.data.pictures import picture


def opened(home: Path, which: str) -> Split:
    return open_split(DataSettings(kind="folder", root=home), which)


def describe(home: Path, text: str) -> None:
    (home / "seenet.yaml").write_text(text)


def test_no_description(own_folder: Path) -> None:
    with pytest.raises(DataError, match="seenet data init"):
        opened(own_folder, "train")


def test_remap_and_rgb(own_folder: Path) -> None:
    describe(own_folder, "decode: remap\nremap: {0: 1, 1: 0, 2: 1, 255: 255}\nclasses: [a, b]\n")
    mask = opened(own_folder, "train").read(0)[1]
    assert (mask[0, 0], mask[0, -1], mask[-1, 0], mask[-1, -1]) == (1, 0, 1, 255)
    describe(own_folder, "decode: remap\nremap: {0: 1}\nclasses: [a, b]\n")
    with pytest.raises(DataError, match=r"id 1 \(12 pixels\) has no entry"):
        opened(own_folder, "train").read(0)
    for path in (own_folder / "masks").iterdir():
        picture(path, np.full((6, 8, 3), (9, 8, 7), np.uint8))
    describe(own_folder, "decode: rgb\nclasses: {a: [1, 2, 3], b: [9, 8, 7]}\n")
    assert (opened(own_folder, "train").read(0)[1] == 1).all()
    describe(own_folder, "decode: rgb\nclasses: {a: [1, 2, 3]}\n")
    with pytest.raises(DataError, match=r"colour \[9, 8, 7\] \(48 pixels\)"):
        opened(own_folder, "train").read(0)


def test_a_changed_table_is_checked_again(own_folder: Path) -> None:
    describe(own_folder, "decode: remap\nremap: {0: 1}\nremap_others: ignore\nclasses: [a, b]\n")
    check_split(opened(own_folder, "train"))
    describe(own_folder, "decode: remap\nremap: {0: 1}\nclasses: [a, b]\n")
    with pytest.raises(DataError, match="has no entry"):
        check_split(opened(own_folder, "train"))


def test_lists_and_shares(own_folder: Path) -> None:
    def keys(which: str) -> set[str]:
        split = opened(own_folder, which)
        return {split.key(index) for index in range(len(split))}

    describe(own_folder, "decode: index\nclasses: [a, b, c]\nval: 0.4\n")
    assert keys("train") | keys("val") == keys("all")
    assert not keys("train") & keys("val")
    share = keys("val")
    (own_folder / "train.txt").write_text("".join(f"p{number:02d}.jpg\n" for number in range(20)))
    (own_folder / "val.txt").write_text("p03\np05\n")
    describe(own_folder, "decode: index\nclasses: [a, b, c]\nval: 0.4\ntrain: train.txt\n")
    assert keys("train") == keys("all") - share
    describe(own_folder, "decode: index\nclasses: [a, b, c]\nval: val.txt\n")
    assert keys("val") == {"p03", "p05"}
    assert keys("train") == keys("all") - {"p03", "p05"}
    (own_folder / "val.txt").write_text("p03\nnowhere\n")
    with pytest.raises(DataError, match="nowhere: no such picture"):
        keys("val")


def test_pictures_and_masks_side_by_side(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg")
        picture(tmp_path / f"{name}_mask.png", np.zeros((6, 8), np.uint8))
    describe(tmp_path, "images: .\nmasks: .\nmask_suffix: _mask\ndecode: index\nclasses: [x]\n")
    assert len(opened(tmp_path, "all")) == 2


def test_missing_and_broken(own_folder: Path) -> None:
    describe(own_folder, "decode: index\nclasses: [a, b, c]\n")
    (own_folder / "masks" / "p07.png").unlink()
    with pytest.raises(DataError, match=r"no mask for p07\.jpg"):
        opened(own_folder, "all")
    describe(own_folder, "images: pictures\ndecode: index\nclasses: [a]\n")
    with pytest.raises(DataError, match="pictures: no such folder"):
        opened(own_folder, "all")
    describe(own_folder, "val: 0\ndecode: index\nclasses: [a]\n")
    with pytest.raises(DataError, match="no pictures found"):
        opened(own_folder, "val")


def test_share_is_by_hash_but_never_all_or_none() -> None:
    many = [f"p{number}" for number in range(500)]
    taken = in_share(many, 0.2)
    assert 70 < len(taken) < 130
    assert taken == sorted(taken, key=many.index)
    assert set(in_share(many[:250], 0.2)) == set(taken) & set(many[:250])
    assert in_share(reversed(many), 0.2) == taken[::-1]
    for start in range(100):
        few = many[start : start + 5]
        assert 1 <= len(in_share(few, 0.2)) <= len(in_share(few, 0.5)) <= len(in_share(few, 0.999)) == 4
        assert set(in_share(few, 0.001)) <= set(in_share(few, 0.2))
    assert in_share(many, 0) == []
    assert in_share(["alone"], 0.0001) == []
    assert in_share(["alone"], 0.9999) == ["alone"]


def test_share_that_falls_on_none_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    picture(tmp_path / "masks" / "a.png", np.zeros((6, 8), np.uint8))
    settings = DataSettings(kind="folder", root=tmp_path)
    (tmp_path / "seenet.yaml").write_text("decode: index\nclasses: [x]\nval: 0.0001\n")
    with pytest.raises(DataError, match=r"the share val: 0.0001 fell on none of 1 pictures; raise it or give a list"):
        open_split(settings, "val")
    (tmp_path / "seenet.yaml").write_text("decode: index\nclasses: [x]\nval: 0.9999\n")
    with pytest.raises(DataError, match=r"the share val: 0.9999 fell on all of 1 pictures; lower it or give a list"):
        open_split(settings, "train")


def test_hidden_folders_are_not_looked_into(tmp_path: Path) -> None:
    for name in ("a.png", ".b.png", ".cache/c.png", "sub/d.png"):
        picture(tmp_path / ".hidden-above" / name)
    assert list(by_stem(tmp_path / ".hidden-above")) == ["a", "sub/d"]


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    names = [os.fsdecode(name) for name in (b"a", b"caf\xe9", b"z")]
    for name in names:
        picture(tmp_path / "images" / f"{name}.png")
        picture(tmp_path / "masks" / f"{name}.png", np.ones((6, 8), np.uint8))
    (tmp_path / "seenet.yaml").write_text("decode: index\nclasses: [x, y]\nval: 0.5\n")
    split = open_split(DataSettings(kind="folder", root=str(tmp_path)), "all")
    assert [split.key(index) for index in range(3)] == names and len({split.stamp(index) for index in range(3)}) == 3
    assert [name for name in in_share(names, 0.5) if name not in names] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: 3", "classes: found 3, expected names: [road, sky], or names with colours"),
        ("classes: road", "classes: found 'road', expected names"),
        ("classes: []", "classes: found none, expected the name of at least one class"),
        ("classes: {}", "classes: found none"),
        ("classes: [a, b, a]", "classes: found a 2 times, expected a name once"),
        ("classes: {a: [1, 2, 3], b: [4, 5, 6], a: [7, 8, 9]}", "found a in line 1 and again in line 1, expected it once"),
        ("classes:\n  a: [1, 2, 3]\n  a: [7, 8, 9]", "found a in line 2 and again in line 3"),
        ("classes: [a]\nval: 0.1\nval: 0.2", "found val in line 2 and again in line 3"),
        (
            "classes: {yes: [1, 2, 3]}",
            "classes: found True, expected a name; what YAML reads as no text (yes, no, on, off, 1) needs quotes",
        ),
        ("classes: [1, 2]", "classes: found 1, expected a name"),
        ("classes: [{a: [1, 2, 3]}]", "classes: found {'a': [1, 2, 3]}, expected a name"),
        ("classes: {a: [1, 2]}", "classes: a: found [1, 2], expected a colour: [r, g, b], whole numbers from 0 to 255"),
        ("classes: {a: [1, 2, 256]}", "classes: a: found [1, 2, 256], expected a colour"),
        ("classes: {a: red}", "classes: a: found 'red', expected a colour"),
        ("classes: [a]\nignore_colours: [0, 0, 0]", "ignore_colours.0: found 0, expected a colour"),
        ("classes: [a]\nval: 2", "val: found 2, expected a share from 0 to below 1, or a list or folder: val.txt, images/val"),
        ("classes: [a]\nval: -0.1", "val: found -0.1, expected a share"),
        ("classes: [a]\nval: .nan", "val: found nan, expected a share"),
        ("classes: [a]\nval: true", "val: found True, expected a share"),
        ("classes: [a]\nval:", "val: found None, expected a share"),
        ("clases: [a]\nclasses: [a]", "clases: unknown setting; nearest: classes"),
        ("classes: [a]\ndecode: rgb", "decode: rgb needs the colour of each class"),
        ("classes: [a]\ndecode: remap", "decode: remap and a table `remap"),
        ("classes: [a]\nignore: 0", "ignore 0 is also a class"),
        ("classes: [a]\ndecode: [", "not valid YAML"),
        ("- a", "found list, expected a mapping with decode and classes"),
        ("", "found NoneType, expected a mapping"),
    ],
)
def test_wrong_values_are_told_in_words(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "seenet.yaml"
    path.write_text(f"{text}\n" + ("decode: index\n" if "classes" in text and "decode" not in text else ""))
    with pytest.raises(UsageError) as caught:
        read_description(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_no_two_classes_of_one_colour_where_colours_tell_them_apart(tmp_path: Path) -> None:
    path = tmp_path / "seenet.yaml"
    path.write_text("decode: rgb\nclasses: {a: [1, 2, 3], b: [1, 2, 3]}\n")
    with pytest.raises(UsageError, match=r"a and b have one colour, \[1, 2, 3\]; expected one each"):
        read_description(path)
    path.write_text("decode: rgb\nclasses: {a: [1, 2, 3]}\nignore_colours: [[0, 0, 0], [1, 2, 3]]\n")
    with pytest.raises(UsageError, match="a and ignore_colours have one colour"):
        read_description(path)
    # Colours of ids are for show alone.
    path.write_text("decode: index\nclasses: {a: [1, 2, 3], b: [1, 2, 3]}\n")
    assert read_description(path).labels().num_classes == 2
