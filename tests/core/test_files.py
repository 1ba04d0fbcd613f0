"""Where a file may be written, and which text is read."""

from pathlib import Path

import pytest

from seenet.core.errors import DataError
from seenet.core.files import check_free, read_text


def test_nothing_is_overwritten_unasked(tmp_path):
    taken, free = tmp_path / "taken.png", tmp_path / "new/free.png"
    taken.write_bytes(b"mine")
    check_free([free], overwrite=False)
    with pytest.raises(DataError, match=r"taken\.png: exists already; use --overwrite or another --out$"):
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
        with pytest.raises(DataError, match=r"taken: a file, expected a folder or nothing; give another --out"):
            check_free([path], overwrite=True)


def test_a_link_to_nowhere_is_something(tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"link\.png"):
        check_free([link], overwrite=False)
    check_free([link], overwrite=True)


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
