"""What `seenet.yaml` may say, what is said where it is wrong, and which pictures a share falls on."""

from pathlib import Path

import numpy as np
import pytest

from seenet.core.errors import DataError, UsageError
from seenet.core.files import read_text
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.folder import by_stem, in_share, read_description
from tests.data.test_sets import picture


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
        ("- a", "found list, expected a mapping with decode and classes"),
        ("", "found NoneType, expected a mapping"),
    ],
)
def test_wrong_values_are_told_in_words(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "seenet.yaml"
    path.write_text(f"{text}\n" + ("decode: index\n" if "classes" in text else ""))
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


def test_text_is_utf8_or_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "val.txt"
    path.write_bytes("\ufeffStraße\n".encode())
    assert read_text(path) == "Straße\n"
    path.write_bytes("Straße\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"val\.txt: not UTF-8 text \(byte 0xff at 0\), expected UTF-8"):
        read_text(path)

    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(DataError, match=r"val\.txt: cannot be read \(Permission denied\)"):
        read_text(path)


def test_hidden_folders_are_not_looked_into(tmp_path: Path) -> None:
    for name in ("a.png", ".b.png", ".cache/c.png", "sub/d.png"):
        picture(tmp_path / ".hidden-above" / name)
    assert list(by_stem(tmp_path / ".hidden-above")) == ["a", "sub/d"]
