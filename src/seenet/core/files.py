"""Files: found by name, never half written or overwritten unasked, and text that is read or refused in one line."""

import hashlib
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from seenet.core.errors import DataError, SeenetError, UsageError, nearest
from seenet.core.processor import lacks_memory

LONGEST = 200
"""Bytes of a name that has room for more around it."""
# What a temporary file of `replacing` looks like, once or twice over.
TEMPORARY = re.compile(r"\.{1,2}(?P<name>.+?)\.[a-z0-9_]{8}\.\w+(\.[a-z0-9_]{8}\.\w+)?")


def check_free(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Raise DataError where a file may not be written.

    One is there (without `overwrite`), or a folder, or a file where its folder should be.
    """
    there = [path for path in paths if os.path.lexists(path) and (not overwrite or path.is_dir())]
    if there:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise DataError(f"{there[0]}{more}: exists already; use --overwrite or another --out")
    for path in paths:
        above = next(
            parent for parent in path.parents if parent.exists() or parent == parent.parent
        )
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


@contextmanager
def writing_to(
    path: Path,
    fix: str = "make room or choose another --out",
    *,
    errors: tuple[type[Exception], ...] = (OSError,),
) -> Iterator[None]:
    """Say in one line that `path` cannot be written where the block raises one of `errors`.

    Raises:
        DataError: With the system's reason; `fix` ends its line.
    """
    try:
        yield
    except errors as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be written ({reason})", fix=fix) from None


def beside(path: Path) -> Path:
    """Make an empty file, hidden beside `path`, for what will get its name; `remove_leftovers` knows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{short(path.name)}.", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    return Path(name)


def short(name: str) -> str:
    """Leave room around a name (`beside`), within the 255 bytes that file systems give; a long one becomes its hash."""
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
    """List files with one of these suffixes (lower case) below a folder, sorted, nothing hidden. DataError where it cannot be listed."""

    def refused(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: cannot be listed ({error.strerror}); look at its permissions"
        )

    found = []
    for where, folders, files in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(where, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return sorted(found)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text so that a reader sees the old file or the whole new one.

    Bytes of file names that are no UTF-8 stand there as \\udcXX, which JSON reads back as they were.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_text(path: Path) -> str:
    """Read UTF-8 text, with or without the mark that Windows puts in front; DataError where it is not that, or cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        raise DataError(
            f"{path}: not UTF-8 text ({found}), expected UTF-8; save it again in that encoding"
        ) from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}), expected a text file; look at its permissions"
        ) from None


def digest(*parts: str) -> str:
    """Hash parts, which may be file names of any bytes, by SHA-256, in hex."""
    return hashlib.sha256("|".join(parts).encode(errors="surrogatepass")).hexdigest()


def sha256(path: Path) -> str:
    """Hash a file's bytes by SHA-256, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """Name the folder of results that can be worked out again; it need not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seenet"


def bundled_models() -> dict[str, Path]:
    """List the models that come with the package, by name."""
    folder = Path(str(resources.files("seenet") / "models"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_model(name: str | Path) -> Path:
    """Find the model file of a run folder, a .safetensors file or a bundled name; DataError where there is none."""
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        if (path / "model.safetensors").is_file():
            return path / "model.safetensors"
        raise DataError(
            f"{path}: a folder without model.safetensors; expected a finished run (seenet train ... --out {path})"
        )
    bundled = bundled_models()
    if str(name) in bundled:
        return bundled[str(name)]
    raise DataError(
        f"{name}: no such run, model file or bundled model; {nearest(str(name), bundled) if bundled else 'no model is bundled'}"
    )


def load_callable(name: str, setting: str, signature: str) -> Callable[..., Any]:
    """Import what `setting` names; UsageError where it cannot be imported or called. `signature` says how it will be called."""
    module, _, attribute = name.partition(":")
    # The working folder is on the path of `python -m seenet`, not on that of `seenet`; last, so that it hides no package.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's module may raise anything; --debug shows where
        raise UsageError(
            f"{setting}={name}: cannot be imported ({' '.join(str(error).split())[:160]}); "
            "expected package.module:callable, in this folder or PYTHONPATH"
        ) from error
    if not callable(found):
        raise UsageError(f"{setting}={name}: not callable; expected a function of {signature}")
    result: Callable[..., Any] = found
    return result


@contextmanager
def own_code(name: str) -> Iterator[None]:
    """Say in one line what the user's own code, called `name`, raises in the block.

    Raises:
        UsageError: with its words; --debug shows where. Errors of this package, and a full memory,
            stay what they are.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, SeenetError) or lacks_memory(error):
            raise
        what = " ".join(str(error).split())[:160]
        raise UsageError(f"{name}: failed with {type(error).__name__}: {what}") from error
