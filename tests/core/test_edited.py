"""Pieces of a file read as one."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seenet.core.edited import edited

FILE = bytes(range(256)) * 400

pieces = st.lists(
    st.one_of(st.binary(max_size=9), st.tuples(st.integers(0, len(FILE)), st.integers(0, len(FILE))).map(lambda ends: tuple(sorted(ends)))),
    max_size=6,
)


@given(pieces=pieces, seeks=st.lists(st.tuples(st.integers(0, 3 * len(FILE)), st.integers(0, 3000)), max_size=8))
def test_pieces_read_as_if_they_were_joined(pieces: list[bytes | tuple[int, int]], seeks: list[tuple[int, int]]) -> None:
    joined = b"".join(piece if isinstance(piece, bytes) else FILE[slice(*piece)] for piece in pieces)
    stream = edited(io.BytesIO(FILE), pieces)
    assert stream.read() == joined
    assert stream.seek(0, io.SEEK_END) == len(joined)
    for place, count in seeks:
        stream.seek(place)
        assert stream.read(count) == joined[place : place + count]


def test_a_piece_that_reaches_beyond_the_end_ends_there(tmp_path: Path) -> None:
    assert edited(io.BytesIO(b"abc"), [b"x", (1, 99)]).read() == b"xbc"
    with pytest.raises(ValueError, match="negative"):
        edited(io.BytesIO(b"abc"), [(0, 3)]).seek(-9, io.SEEK_CUR)
    (tmp_path / "file").write_bytes(b"abc")
    with (tmp_path / "file").open("rb") as stream:
        assert edited(stream, [(0, 1), b"x"]).fileno() == stream.fileno()
