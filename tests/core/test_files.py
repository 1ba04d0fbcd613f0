"""Where a file may be written."""

import pytest

from seenet.core.errors import DataError
from seenet.core.files import check_free


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
