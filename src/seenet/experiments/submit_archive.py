"""Archives of results: written the same every time, read without trust.

Nothing is unpacked: a file's content goes to whoever asks in memory, its name is only compared. What is not a plain file under a plain
name ends the reading with a CheckError.
"""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from seenet.core.errors import CheckError, DataError

MOST_BYTES_OF_A_FILE = 16 * 2**20
"""A whole Cityscapes frame is 2 MiB before compression."""
MOST_BYTES = 4 * 2**30
"""Of all files of an archive together, decompressed."""
MOST_ENTRIES = 10_000
MOST_BYTES_OF_A_HEADER = 2**16

# Others are decompressed in steps of any size.
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What the readers raise over archives that are damaged (RecursionError: headers in headers).
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, LookupError, RuntimeError,
    NotImplementedError, OverflowError,
)  # fmt: skip

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip


def write_archive(path: Path, suffix: str, files: Iterable[tuple[str, bytes]]) -> None:
    """Pack (name, content) as `.tar.gz` or `.zip` in the order given, without times, owners or own name: same files, same bytes."""
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # PNGs are compressed already
            for name, content in files:
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
                archive.writestr(entry, content)
        return
    with (
        path.open("wb") as stream,
        gzip.GzipFile("", "wb", 6, stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))


def suffix_of(path: Path) -> str:
    """`.tar.gz` or `.zip` by the first bytes; DataError where there is no file, CheckError where it is neither."""
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected an archive to check") from None
    if start[:2] == b"\x1f\x8b":
        return ".tar.gz"
    if start in (b"PK\x03\x04", b"PK\x05\x06"):
        return ".zip"
    raise CheckError(f"{path}: neither a .tar.gz nor a .zip; expected results packed as the benchmark asks")


def read_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file, in the archive's order, folders left out.

    Raises CheckError: an absolute name or one with `..`, a link, device or sparse file, an encrypted one, one that comes twice, too large
    or too many, a damaged archive; DataError: no file.
    """
    members = _zipped if suffix_of(path) == ".zip" else _tarred
    seen: set[str] = set()
    total = 0
    try:
        for number, (name, content) in enumerate(members(path)):
            if number >= MOST_ENTRIES:
                raise CheckError(f"{path}: over {MOST_ENTRIES} entries, expected one a picture; it is not what a benchmark asks for")
            plain = _plain(path, name)
            if content is None:
                continue
            if plain in seen:
                raise CheckError(f"{path}: {plain}: comes twice; pack each file once")
            seen.add(plain)
            total += len(content)
            if total > MOST_BYTES:
                raise CheckError(f"{path}: {plain}: with it over {MOST_BYTES} bytes in all; it is not what a benchmark asks for")
            yield plain, content
    except _BROKEN as error:
        raise CheckError(f"{path}: damaged ({' '.join(str(error).split())[:120] or type(error).__name__}); pack it again") from None


def _plain(path: Path, name: str) -> str:
    """The name, without `./`; never used as a path."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in name or not name.isprintable():
        raise CheckError(f"{path}: {name[:80]!r}: an absolute name, one that leaves the archive's folder, or none; pack relative names")
    return "/".join(parts)


def _too_large(path: Path, name: str, size: int) -> CheckError:
    return CheckError(f"{path}: {name[:80]!r}: {size} bytes, expected at most {MOST_BYTES_OF_A_FILE} for one mask")


def _zipped(path: Path) -> Iterator[tuple[str, bytes | None]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.orig_filename
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or entry.flag_bits & 1 or entry.compress_type not in _PACKINGS:
                raise CheckError(f"{path}: {name[:80]!r}: a link, a device, encrypted or packed strangely; expected plain files")
            if entry.file_size > MOST_BYTES_OF_A_FILE:
                raise _too_large(path, name, entry.file_size)
            if entry.is_dir():
                yield name, None
                continue
            with archive.open(entry) as stream:
                # One byte more than is said, so that the end is reached and its checksum compared.
                content = stream.read(entry.file_size + 1)
            if len(content) != entry.file_size:
                raise CheckError(f"{path}: {name[:80]!r}: {len(content)} bytes, but {entry.file_size} are announced; pack it again")
            yield name, content


def _tarred(path: Path) -> Iterator[tuple[str, bytes | None]]:
    with gzip.open(path, "rb") as stream:
        headers = _Headers(path, stream)
        with tarfile.open(fileobj=headers, mode="r:") as archive:  # type: ignore[call-overload]
            last = -1
            while (member := archive.next()) is not None:
                headers.left = MOST_BYTES_OF_A_HEADER
                name = member.name
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise CheckError(f"{path}: {name[:80]!r}: a link, a device or a sparse file; expected plain files")
                if member.offset_data <= last or member.size < 0:
                    raise CheckError(f"{path}: {name[:80]!r}: a header that points back; the archive is damaged, pack it again")
                last = member.offset_data
                if member.size > MOST_BYTES_OF_A_FILE:
                    raise _too_large(path, name, member.size)
                if member.isdir():
                    yield name, None
                    continue
                stream.seek(member.offset_data)
                content = stream.read(member.size)
                if len(content) != member.size:
                    raise CheckError(f"{path}: {name[:80]!r}: ends too early; the archive is damaged, pack it again")
                yield name, content
        # Behind the last file come zeros alone. Reading on also compares the checksum, and finds files behind a damaged header.
        padding = 0
        while rest := stream.read(2**16):
            padding += len(rest)
            if rest.strip(b"\0") or padding > MOST_BYTES_OF_A_FILE:
                raise CheckError(f"{path}: holds something behind its last file; the archive is damaged, pack it again")


class _Headers:
    """What tarfile reads headers from, held short: long names, extended and sparse headers are as long as the archive says.

    `left`: bytes that may be read before the next file is there.
    """

    def __init__(self, path: Path, stream: gzip.GzipFile) -> None:
        self._path, self._stream, self.left = path, stream, MOST_BYTES_OF_A_HEADER
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise CheckError(f"{self._path}: a header of over {MOST_BYTES_OF_A_HEADER} bytes; expected plain files under short names")
        return self._stream.read(size)

    def seek(self, offset: int) -> int:
        if not 0 <= offset - self.tell() <= MOST_BYTES_OF_A_FILE + tarfile.BLOCKSIZE:
            raise CheckError(f"{self._path}: a header that points elsewhere; the archive is damaged, pack it again")
        return self._stream.seek(offset)
