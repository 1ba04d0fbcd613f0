from pathlib import Path

import pytest

from seenet.core.errors import DataError, UsageError
from seenet.prediction.inputs import find_inputs, find_pictures, output_names


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def names(patterns, out="out"):
    return [(item.path.as_posix(), item.name) for item in find_inputs(patterns, Path(out))]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_keep_their_subfolders_and_skip_what_is_hidden_or_no_picture(folder):
    touch(folder, "in/b.jpg", "in/sub/a.PNG", "in/.git/x.jpg", "in/._b.jpg", "in/notes.txt", "in/sub/deep/c.jpeg")
    assert names(["in"]) == [("in/b.jpg", "b"), ("in/sub/a.PNG", "sub/a"), ("in/sub/deep/c.jpeg", "sub/deep/c")]


def test_files_by_name_alone_and_each_once(folder):
    touch(folder, "in/sub/a.jpg", "b.jpg")
    assert names(["in/sub/a.jpg", "b.jpg", "./b.jpg", folder / "b.jpg"]) == [("in/sub/a.jpg", "a"), ("b.jpg", "b")]


def test_a_named_file_needs_no_known_suffix(folder):
    touch(folder, "frame.0001")
    assert names(["frame.0001"]) == [("frame.0001", "frame")]


def test_patterns_keep_subfolders_from_the_first_wildcard(folder):
    touch(folder, "in/x/a.jpg", "in/y/a.jpg", "in/y/z/b.png", "in/y/t.txt")
    assert names(["in/*/a.jpg"]) == [("in/x/a.jpg", "x/a"), ("in/y/a.jpg", "y/a")]
    assert names(["in/**/*.png"]) == [("in/y/z/b.png", "y/z/b")]
    assert names(["in/y/*"]) == [("in/y/a.jpg", "a")]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(folder):
    touch(folder, "a[1].jpg", "a1.jpg")
    assert names(["a[1].jpg"]) == [("a[1].jpg", "a[1]")]


def test_outputs_are_no_inputs(folder):
    touch(folder, "a.jpg", "out/masks/a.png", "outside/b.jpg")
    assert names(["."]) == [("a.jpg", "a"), ("outside/b.jpg", "outside/b")]
    with pytest.raises(DataError, match="another --out"):
        names(["out/masks"])


@pytest.mark.parametrize("pattern", ["nothing.jpg", "nowhere/", "*.jpg", "empty"])
def test_nothing_there_is_an_error(folder, pattern):
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=pattern.rstrip("/").replace("*", r"\*")):
        names([pattern])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["a.jpg", "a.png", "b.jpg"], ["a.jpg", "a.png", "b"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a", "y/a"]),
        (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg", "a.png", "a.jpg.png"]),
        (["a.b.jpg", "a.c.jpg"], ["a.b", "a.c"]),
    ],
)
def test_clashing_stems_keep_their_suffix(given, expected):
    assert output_names([(Path(name), name) for name in given]) == expected


def test_same_name_from_two_folders_is_refused(folder):
    touch(folder, "x/a.jpg", "y/a.jpg")
    with pytest.raises(UsageError, match="a folder that holds both"):
        names(["x/a.jpg", "y/a.jpg"])


def test_where_nothing_is_named_after_them_they_may_be_called_the_same(folder):
    touch(folder, "x/a.jpg", "y/a.jpg", "y/sub/b.png")
    expected = [("x/a.jpg", "a.jpg"), ("y/a.jpg", "a.jpg"), ("y/sub/b.png", "sub/b.png")]
    assert [(path.as_posix(), name) for path, name in find_pictures(["x", "y", "./x/a.jpg"], Path("out"))] == expected
