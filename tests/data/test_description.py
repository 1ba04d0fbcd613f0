"""What `seenet.yaml` may say, and what is said where it is wrong."""

from pathlib import Path

import pytest

from seenet.core.errors import UsageError
from seenet.data.description import read_description


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
