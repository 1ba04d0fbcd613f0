"""Which pictures a split has, and what is said where it has none."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from seenet.core.errors import DataError
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.folder import by_stem, in_share
from tests.data.test_sets import picture


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
