"""Writing without overwriting, atomic names, reading text and listing folders."""

import hashlib
import os
from pathlib import Path

import pytest

from seenet.core.errors import DataError, UsageError
from seenet.core.files import (
    beside,
    check_free,
    digest,
    files_below,
    load_callable,
    own_code,
    read_text,
    remove_leftovers,
    replacing,
    write_text,
    writing_to,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files, a folder and a dangling link, all named *.png."""
    for name in ("taken.png", "other.png"):
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    return tmp_path


@pytest.mark.parametrize(
    ("names", "overwrite", "message"),
    [
        ("free.png taken.png", False, r"taken\.png: exists already; use --overwrite"),
        ("other.png new/free.png taken.png", False, r"other\.png \(and 1 more\): exists already"),
        ("link.png", False, r"link\.png: exists already"),
        ("folder.png", True, r"folder\.png: exists already"),
        ("taken.png/er.png", True, r"taken\.png: a file, expected a folder or nothing"),
        ("taken.png/deep/er.png", False, r"taken\.png: a file, expected a folder or nothing"),
    ],
)
def test_existing_paths_are_refused(
    folder: Path, names: str, overwrite: bool, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        check_free([folder / name for name in names.split()], overwrite=overwrite)


def test_free_paths_and_files_to_overwrite_are_accepted(folder: Path) -> None:
    check_free([folder / "free.png", folder / "new/free.png"], overwrite=False)
    check_free([folder / "taken.png", folder / "link.png"], overwrite=True)
    assert (folder / "taken.png").read_bytes() == b"mine"


def test_a_failed_write_is_one_line(folder: Path) -> None:
    path = folder / "taken.png" / "page.html"
    expected = r"page\.html: cannot be written \((Not a directory|File exists)\); make room$"
    with pytest.raises(DataError, match=expected), writing_to(path, "make room"):
        write_text(path, "text")
    expected = r"page\.html: cannot be written \(a library's own\); make room or"
    with pytest.raises(DataError, match=expected), writing_to(path, errors=(LookupError,)):
        raise LookupError("a library's own")


def test_text_is_utf8_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "val.txt"
    path.write_bytes("\ufeffStraße\n".encode())
    assert read_text(path) == "Straße\n"
    path.write_bytes("Straße\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"val\.txt: not UTF-8 text \(byte 0xff at 0\)"):
        read_text(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_text(tmp_path)


def test_the_digest_of_names_of_any_bytes() -> None:
    assert digest(os.fsdecode(b"caf\xe9"), "ü") != digest("caf", "ü")
    assert digest("a", "b") == hashlib.sha256(b"a|b").hexdigest()


def test_leftovers_of_a_longest_name_are_removed(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 125 + ".png")
    with replacing(path) as temporary:
        temporary.write_bytes(b"whole")
    left, other = beside(path), beside(tmp_path / ("ö" * 125 + ".png"))
    remove_leftovers([path])
    assert path.read_bytes() == b"whole"
    assert not left.exists() and other.exists()


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: cannot be listed"):
        files_below(tmp_path / "none", {".png"})


@pytest.mark.parametrize("text", ["import no_such_module", "def f(:", "f = 1 / 0", "g = 1"])
def test_whatever_a_module_of_ones_own_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    name = f"lame_{len(text)}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=f"^--metric={name}:f: cannot be imported") as caught:
        load_callable(f"{name}:f", "--metric", "a split")
    assert "\n" not in str(caught.value)


def test_what_ones_own_code_raises_is_one_line_but_for_our_errors() -> None:
    with pytest.raises(UsageError, match=r"^mine: failed with KeyError: 'a b'$"), own_code("mine"):
        raise KeyError("a b")
    for error in (DataError("a.png: damaged"), MemoryError()):
        with pytest.raises(type(error)) as caught, own_code("mine"):
            raise error
        assert caught.value is error
