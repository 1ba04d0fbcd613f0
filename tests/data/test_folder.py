"""The user's own folders: splits, masks, and errors in a `seenet.yaml`."""

from pathlib import Path

import numpy as np
import pytest

from seenet.core.errors import DataError, UsageError
from seenet.core.settings import DataSettings
from seenet.data import Split, open_split
from seenet.data.check.scan import check_split
from seenet.data.description import read_description
from seenet.data.folder import in_share
from tests.data.pictures import pairs


def opened(home: Path, which: str, description: str | None = None) -> Split:
    """Open a split, after writing the seenet.yaml."""
    if description is not None:
        (home / "seenet.yaml").write_text(description)
    return open_split(DataSettings(kind="folder", root=home), which)


def keys(home: Path, which: str, description: str | None = None) -> list[str]:
    split = opened(home, which, description)
    return [split.key(index) for index in range(len(split))]


def test_without_a_description_the_command_is_named(own_folder: Path) -> None:
    with pytest.raises(DataError, match="seenet data init"):
        opened(own_folder, "train")


def test_remapped_ids(own_folder: Path) -> None:
    table = "decode: remap\nremap: {0: 1, 1: 0, 2: 1, 255: 255}\nclasses: [a, b]\n"
    mask = opened(own_folder, "train", table).read(0)[1]
    assert mask[::5, ::7].tolist() == [[1, 0], [1, 255]]
    with pytest.raises(DataError, match=r"id 1 \(12 pixels\) has no entry"):
        opened(own_folder, "train", "decode: remap\nremap: {0: 1}\nclasses: [a, b]\n").read(0)


def test_colours(tmp_path: Path) -> None:
    pairs(tmp_path, *"abc", mask=np.full((6, 8, 3), (9, 8, 7), np.uint8))
    table = "decode: rgb\nclasses: {a: [1, 2, 3], b: [9, 8, 7]}\n"
    assert (opened(tmp_path, "train", table).read(0)[1] == 1).all()
    with pytest.raises(DataError, match=r"colour \[9, 8, 7\] \(48 pixels\)"):
        opened(tmp_path, "train", "decode: rgb\nclasses: {a: [1, 2, 3]}\n").read(0)


def test_a_changed_table_is_checked_again(own_folder: Path) -> None:
    table = "decode: remap\nremap: {0: 1}\nclasses: [a, b]\n"
    check_split(opened(own_folder, "train", table + "remap_others: ignore\n"))
    with pytest.raises(DataError, match="has no entry"):
        check_split(opened(own_folder, "train", table))


def test_lists_and_shares(own_folder: Path) -> None:
    base = "decode: index\nclasses: [a, b, c]\n"
    share = keys(own_folder, "val", base + "val: 0.4\n")
    every = keys(own_folder, "all")
    rest = [key for key in every if key not in share]
    assert keys(own_folder, "train") == rest
    (own_folder / "train.txt").write_text("".join(f"{key}.jpg\n" for key in every))
    assert keys(own_folder, "train", base + "val: 0.4\ntrain: train.txt\n") == rest
    (own_folder / "val.txt").write_text("p03\np05\n")
    assert keys(own_folder, "val", base + "val: val.txt\n") == ["p03", "p05"]
    assert keys(own_folder, "train") == [key for key in every if key not in ("p03", "p05")]
    lists = base + "train: train.txt\nval: val.txt\ntest: test.txt\n"
    (own_folder / "test.txt").write_text("p01\n")
    # A leak between lists of train and val is reported by `data check`; test is always held out.
    assert keys(own_folder, "train", lists) == [key for key in every if key != "p01"]
    (own_folder / "val.txt").write_text("p03\nnowhere\n")
    with pytest.raises(DataError, match="nowhere: no such picture"):
        keys(own_folder, "val")


def test_images_and_masks_in_one_folder(tmp_path: Path) -> None:
    pairs(tmp_path, *"ab", images=".", masks=".", suffix="_mask")
    text = "images: .\nmasks: .\nmask_suffix: _mask\ndecode: index\nclasses: [x]\n"
    assert keys(tmp_path, "all", text) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "which", "message"),
    [
        ("", "all", r"no mask for p07\.jpg"),
        ("images: pictures", "all", "pictures: no such folder"),
        ("val: 0", "val", "no pictures found"),
    ],
)
def test_missing_files_are_named(own_folder: Path, text: str, which: str, message: str) -> None:
    (own_folder / "masks" / "p07.png").unlink()
    with pytest.raises(DataError, match=message):
        opened(own_folder, which, f"decode: index\nclasses: [a, b, c]\n{text}\n")


def test_a_share_is_by_hash_but_never_all_or_none() -> None:
    many = [f"p{number}" for number in range(500)]
    selected = in_share(many, 0.2)
    assert 70 < len(selected) < 130
    assert selected == sorted(selected, key=many.index)
    assert set(in_share(many[:250], 0.2)) == set(selected) & set(many[:250])
    assert in_share(reversed(many), 0.2) == selected[::-1]
    for start in range(100):
        few = many[start : start + 5]
        counts = [len(in_share(few, share)) for share in (0.2, 0.5, 0.999)]
        assert counts == sorted(counts) and counts[0] >= 1 and counts[2] == 4
        assert set(in_share(few, 0.001)) <= set(in_share(few, 0.2))
    assert in_share(many, 0) == in_share(["alone"], 0.0001) == []
    assert in_share(["alone"], 0.9999) == ["alone"]


@pytest.mark.parametrize(
    ("share", "which", "message"),
    [
        (0.0001, "val", "fell on none of 1 pictures; raise it or give a list"),
        (0.9999, "train", "fell on all of 1 pictures; lower it or give a list"),
    ],
)
def test_a_share_that_leaves_a_split_empty_is_named(
    tmp_path: Path, share: float, which: str, message: str
) -> None:
    pairs(tmp_path, "a")
    with pytest.raises(DataError, match=f"the share val: {share} {message}"):
        opened(tmp_path, which, f"decode: index\nclasses: [x]\nval: {share}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: 3", "classes: found 3, expected names: [road, sky], or names with colours"),
        ("classes: road", "classes: found 'road', expected names"),
        ("classes: []", "classes: found none, expected the name of at least one class"),
        ("classes: {}", "classes: found none"),
        ("classes: [a, b, a]", "classes: found a 2 times, expected a name once"),
        ("classes:\n  a: [1, 2, 3]\n  a: [7, 8, 9]", "found a in line 2 and again in line 3"),
        ("classes: {yes: [1, 2, 3]}", "classes: found True, expected a name"),
        ("classes: [1, 2]", "classes: found 1, expected a name"),
        ("classes: [{a: [1, 2, 3]}]", "classes: found {'a': [1, 2, 3]}, expected a name"),
        ("classes: {a: [1, 2]}", "classes: a: found [1, 2], expected a colour: [r, g, b]"),
        ("classes: {a: [1, 2, 256]}", "classes: a: found [1, 2, 256], expected a colour"),
        ("classes: {a: red}", "classes: a: found 'red', expected a colour"),
        ("classes: [a]\nignore_colours: [0, 0, 0]", "ignore_colours.0: found 0, expected a colour"),
        ("classes: [a]\nval: 2", "val: found 2, expected a share from 0 to below 1, or a list"),
        ("classes: [a]\nval: -0.1", "val: found -0.1, expected a share"),
        ("classes: [a]\nval: .nan", "val: found nan, expected a share"),
        ("classes: [a]\nval: true", "val: found True, expected a share"),
        ("classes: [a]\nval:", "val: found None, expected a share"),
        ("clases: [a]\nclasses: [a]", "clases: unknown setting; nearest: classes"),
        ("classes: [a]\ndecode: rgb", "decode: rgb needs the colour of each class"),
        ("classes: [a]\ndecode: remap", "decode: remap (or nearest) and a table `remap"),
        ("classes: [a]\ndecode: remap\nremap: {0: 1}", "remap names class id 1, expected 0 to 0"),
        ("classes: [a]\nignore: 0", "ignore 0 is also a class"),
        ("decode: rgb\nclasses: {a: [1, 2, 3], b: [1, 2, 3]}", "decode: rgb: a and b have one"),
        (
            "decode: rgb\nclasses: {a: [1, 2, 3]}\nignore_colours: [[1, 2, 3]]",
            "decode: rgb: a and ignore_colours have one colour, [1, 2, 3]; expected one each",
        ),
        ("classes: [a]\ndecode: [", "not valid YAML"),
        ("- a", "found list, expected a mapping with decode and classes"),
        ("", "found NoneType, expected a mapping"),
    ],
)
def test_wrong_descriptions_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "seenet.yaml"
    decode = "decode: index\n" if "classes" in text and "decode" not in text else ""
    path.write_text(f"{text}\n{decode}")
    with pytest.raises(UsageError) as caught:
        read_description(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_classes_of_ids_may_share_a_colour(tmp_path: Path) -> None:
    path = tmp_path / "seenet.yaml"
    path.write_text("decode: index\nclasses: {a: [1, 2, 3], b: [1, 2, 3]}\n")
    assert read_description(path).labels().num_classes == 2
