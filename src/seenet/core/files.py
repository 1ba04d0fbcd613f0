"""Find, read and write files: writes are atomic and overwrite only on request."""

import hashlib
import importlib
import json
import logging
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
"""Longest file name, in bytes, that leaves room for the affixes of a temporary name."""
# Name of a temporary file of `replacing`, or of a temporary file for such a file.
TEMPORARY = re.compile(r"\.{1,2}(?P<name>.+?)\.[a-z0-9_]{8}\.\w+(\.[a-z0-9_]{8}\.\w+)?")


def check_free(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Check that these files may be written.

    Raises:
        DataError: a path exists (with `overwrite` only folders count), or a file stands where
            its folder should be.
    """
    taken = [path for path in paths if os.path.lexists(path) and (not overwrite or path.is_dir())]
    if taken:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise DataError(f"{taken[0]}{more}: exists already; use --overwrite or another --out")
    for path in paths:
        above = next(
            parent for parent in path.parents if parent.exists() or parent == parent.parent
        )
        if not above.is_dir():
            raise DataError(f"{above}: a file, expected a folder or nothing; give another --out")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync and rename it to `path`.

    On failure the temporary file is removed.
    """
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
    """Turn `errors` of the block into one line that says that `path` cannot be written.

    Raises:
        DataError: with the system's reason; `fix` ends its line.
    """
    try:
        yield
    except errors as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be written ({reason})", fix=fix) from None


def beside(path: Path) -> Path:
    """Create an empty hidden file in the folder of `path`, to be renamed to `path` later.

    `remove_leftovers` recognizes it by its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{short(path.name)}.", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    return Path(name)


def short(name: str) -> str:
    """Replace a long file name by its hash, so that affixes fit into the usual 255 bytes."""
    return name if len(os.fsencode(name)) <= LONGEST else digest(name)[:32]


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Delete temporary files that a killed `replacing` left beside these paths.

    Call it only while nobody else writes them.
    """
    planned = {path.with_name(short(path.name)) for path in paths}
    for folder in {path.parent for path in planned if path.parent.is_dir()}:
        for path in folder.iterdir():
            match = TEMPORARY.fullmatch(path.name)
            if match and folder / match["name"] in planned:
                path.unlink(missing_ok=True)


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """List the files below a folder that have one of these (lower-case) suffixes, sorted.

    Hidden files and folders are left out.

    Raises:
        DataError: a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: cannot be listed ({error.strerror}); check its permissions"
        )

    found = []
    for where, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(where, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return sorted(found)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically.

    Bytes of file names that are not UTF-8 are written as \\udcXX, which JSON reads back unchanged.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_cache(path: Path, content: object) -> None:
    """Write JSON to a cache file; only log it if that fails, since caches are optional."""
    try:
        write_text(path, json.dumps(content, sort_keys=True))
    except OSError as error:
        logging.getLogger("seenet").info(
            "%s: cannot be written (%s); it will be computed again next time", path, error
        )


def read_text(path: Path) -> str:
    """Read UTF-8 text, with or without a byte order mark.

    Raises:
        DataError: the file cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        raise DataError(
            f"{path}: not UTF-8 text ({found}), expected UTF-8; save it again in that encoding"
        ) from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}), expected a text file; "
            "check its permissions"
        ) from None


def digest(*parts: str) -> str:
    """Return the SHA-256 of strings in hex; they may be file names of any bytes."""
    return hashlib.sha256("|".join(parts).encode(errors="surrogatepass")).hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return the folder of files that can be computed again; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seenet"


def bundled_models() -> dict[str, Path]:
    """Return the models that come with the package, by name."""
    folder = Path(str(resources.files("seenet") / "models"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_model(name: str | Path) -> Path:
    """Return the model file of a run folder, a .safetensors file or a bundled name.

    Raises:
        DataError: there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        if (path / "model.safetensors").is_file():
            return path / "model.safetensors"
        raise DataError(
            f"{path}: a folder without model.safetensors; "
            f"expected a finished run (seenet train ... --out {path})"
        )
    bundled = bundled_models()
    if str(name) in bundled:
        return bundled[str(name)]
    hint = nearest(str(name), bundled) if bundled else "no model is bundled"
    raise DataError(f"{name}: no such run, model file or bundled model; {hint}")


def load_callable(name: str, setting: str, signature: str) -> Callable[..., Any]:
    """Import the callable `package.module:attribute` that a setting names.

    Args:
        name: value of the setting.
        setting: its name, for errors.
        signature: the arguments it will be called with, for errors.

    Raises:
        UsageError: it cannot be imported, or is not callable.
    """
    module, _, attribute = name.partition(":")
    # `python -m seenet` searches the working folder, the command `seenet` does not. It is added
    # last so that it hides no package.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's module may raise anything; --debug shows where
        raise UsageError(
            f"{setting}={name}: cannot be imported ({' '.join(str(error).split())[:160]}); "
            "expected package.module:callable, in this folder or PYTHONPATH"
        ) from error
    if not callable(found):
        raise UsageError(f"{setting}={name}: not callable; expected a function of {signature}")
    return found


@contextmanager
def own_code(name: str) -> Iterator[None]:
    """Turn what the user's own code, called `name`, raises in the block into a UsageError.

    Errors of this package and lack of memory pass unchanged.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, SeenetError) or lacks_memory(error):
            raise
        what = " ".join(str(error).split())[:160]
        raise UsageError(f"{name}: failed with {type(error).__name__}: {what}") from error
