"""Archives of results: written the same every time, and read file by file without unpacking anything to disk."""

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

# What the readers raise over archives that are damaged.
_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, LookupError,
    RuntimeError, NotImplementedError, OverflowError,
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
    """Yield name and content of each file, in the archive's order; folders are left out.

    Raises CheckError: a link or device, a damaged archive; DataError: no file.
    """
    members = _zipped if suffix_of(path) == ".zip" else _tarred
    try:
        for name, content in members(path):
            if content is None:
                raise CheckError(f"{path}: {name}: a link or a device; expected plain files")
            # Other tools pack `./name`.
            yield PurePosixPath(name).as_posix(), content
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise CheckError(f"{path}: damaged ({reason}); pack it again") from None


def _zipped(path: Path) -> Iterator[tuple[str, bytes | None]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                yield entry.filename, None if stat.S_ISLNK(entry.external_attr >> 16) else archive.read(entry)


def _tarred(path: Path) -> Iterator[tuple[str, bytes | None]]:
    with gzip.open(path) as stream:
        with tarfile.open(fileobj=stream) as archive:
            for member in archive:
                if not member.isdir():
                    file = archive.extractfile(member) if member.isreg() else None
                    yield member.name, None if file is None else file.read()
        # Read on to the end, where gzip's checksum stands.
        while stream.read(2**20):
            pass
