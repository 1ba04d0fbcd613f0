"""Files that are never half written or overwritten unasked, and text that is read or refused in one line."""

import hashlib
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from seenet.core.errors import DataError

LONGEST = 200
"""Bytes of a name that has room for more around it."""
# What a temporary file of `replacing` looks like, once or twice over.
TEMPORARY = re.compile(r"\.{1,2}(?P<name>.+?)\.[a-z0-9_]{8}\.\w+(\.[a-z0-9_]{8}\.\w+)?")


def check_free(paths: Sequence[Path], *, overwrite: bool) -> None:
    """DataError where a file may not be written: one is there (without `overwrite`), or a folder, or a file stands for its folder."""
    there = [path for path in paths if os.path.lexists(path) and (not overwrite or path.is_dir())]
    if there:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise DataError(f"{there[0]}{more}: exists already; use --overwrite or another --out")
    for path in paths:
        above = next(parent for parent in path.parents if parent.exists() or parent == parent.parent)
        if not above.is_dir():
            raise DataError(f"{above}: a file, expected a folder or nothing; give another --out")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed onto `path`, on failure removed."""
    temporary = beside(path)
    try:
        yield temporary
        temporary.chmod(0o644)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """An empty file, hidden beside `path`, for what will get its name; `remove_leftovers` knows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{short(path.name)}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    return Path(name)


def short(name: str) -> str:
    """A name that leaves room for more around it (`beside`), within the 255 bytes that file systems give; a long one's hash."""
    return name if len(os.fsencode(name)) <= LONGEST else digest(name)[:32]


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Delete temporary files that a killed `replacing` of these paths left beside them; for those who know that nobody is writing them."""
    planned = {path.with_name(short(path.name)) for path in paths}
    for folder in {path.parent for path in planned}:
        if folder.is_dir():
            for path in folder.iterdir():
                match = TEMPORARY.fullmatch(path.name)
                if match and folder / match["name"] in planned:
                    path.unlink(missing_ok=True)


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Files with one of these suffixes (lower case) below a folder, sorted, without what is hidden. DataError where it cannot be listed."""

    def refused(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); look at its permissions")

    found = []
    for where, folders, files in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(where, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in suffixes]
    return sorted(found)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text so that a reader sees the old file or the whole new one.

    Bytes of file names that are no UTF-8 stand there as \\udcXX, which JSON reads back as they were.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_text(path: Path) -> str:
    """A file's UTF-8 text, with or without the mark that Windows puts in front; DataError where it is not that, or cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        raise DataError(f"{path}: not UTF-8 text ({found}), expected UTF-8; save it again in that encoding") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), expected a text file; look at its permissions") from None


def digest(*parts: str) -> str:
    """SHA-256 of parts, in hex; they may be file names of any bytes."""
    return hashlib.sha256("|".join(parts).encode(errors="surrogatepass")).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where results that can be worked out again are remembered; it need not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seenet"
