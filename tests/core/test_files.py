"""Where a file may be written, and which text is read."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

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


def test_nothing_is_overwritten_unasked(tmp_path):
    taken, free = tmp_path / "taken.png", tmp_path / "new/free.png"
    taken.write_bytes(b"mine")
    check_free([free], overwrite=False)
    with pytest.raises(
        DataError, match=r"taken\.png: exists already; use --overwrite or another --out$"
    ):
        check_free([free, taken], overwrite=False)
    (tmp_path / "other.png").write_bytes(b"mine too")
    with pytest.raises(DataError, match=r"other\.png \(and 1 more\): exists already"):
        check_free([tmp_path / "other.png", free, taken], overwrite=False)
    check_free([taken], overwrite=True)
    assert taken.read_bytes() == b"mine"


def test_what_overwrite_does_not_replace(tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match=r"folder\.png"):
        check_free([tmp_path / "folder.png"], overwrite=True)
    (tmp_path / "taken").write_bytes(b"mine")
    for path in (tmp_path / "taken/er.png", tmp_path / "taken/deep/er.png"):
        with pytest.raises(
            DataError, match=r"taken: a file, expected a folder or nothing; give another --out"
        ):
            check_free([path], overwrite=True)


def test_a_link_to_nowhere_is_something(tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"link\.png"):
        check_free([link], overwrite=False)
    check_free([link], overwrite=True)


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "page.html"
    with (
        pytest.raises(
            DataError,
            match=r"page\.html: cannot be written \((Not a directory|File exists)\); make room$",
        ),
        writing_to(path, "make room"),
    ):
        write_text(path, "text")
    with (
        pytest.raises(
            DataError, match=r"page\.html: cannot be written \(a library's own\); make room or"
        ),
        writing_to(path, errors=(LookupError,)),
    ):
        raise LookupError("a library's own")
    with pytest.raises(ValueError, match="a bug"), writing_to(path):
        raise ValueError("a bug")


def test_text_is_utf8_or_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "val.txt"
    path.write_bytes("\ufeffStraße\n".encode())
    assert read_text(path) == "Straße\n"
    path.write_bytes("Straße\n".encode("utf-16"))
    with pytest.raises(
        DataError, match=r"val\.txt: not UTF-8 text \(byte 0xff at 0\), expected UTF-8"
    ):
        read_text(path)

    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(DataError, match=r"val\.txt: cannot be read \(Permission denied\)"):
        read_text(path)


def test_names_of_any_bytes_are_written_and_read_again(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_text(tmp_path / "names.json", json.dumps({name: "ü"}, ensure_ascii=False))
    assert json.loads((tmp_path / "names.json").read_text(encoding="utf-8")) == {name: "ü"}
    assert (
        digest(name, "ü") != digest("caf", "ü")
        and digest("a", "b") == hashlib.sha256(b"a|b").hexdigest()
    )


def test_a_name_as_long_as_file_systems_allow(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 125 + ".png")
    with replacing(path) as temporary:
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    left, other = beside(path), beside(tmp_path / ("ö" * 125 + ".png"))
    remove_leftovers([path])
    assert not left.exists() and other.exists() and path.exists()


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.png", "deep/a.PNG", "deep/.hidden/c.png", ".d.png", "e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert files_below(tmp_path, {".png"}) == [tmp_path / "b.png", tmp_path / "deep/a.PNG"]
    scandir = os.scandir

    def refused(path: str) -> Any:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(
        DataError, match=r"deep: cannot be listed \(Permission denied\); look at its permissions"
    ):
        files_below(tmp_path, {".png"})


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
