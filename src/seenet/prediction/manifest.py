"""The manifest of a folder of predictions: what each file was made from.

By it a second run does only what is missing, and overwrites nothing that it did not make.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from seenet.core.errors import BusyError, DataError
from seenet.core.files import sha256, write_text
from seenet.core.locks import locked

NAME = "manifest.json"
JOURNAL = ".manifest.jsonl"
JOURNALS = ".manifest*.jsonl"


class Manifest:
    """Entries by output name.

    An entry is {"input", "model", "settings": SHA-256 each, "outputs": {path in OUT: SHA-256}} and,
    for readers, `way`: {"runtime", "precision"}.
    """

    def __init__(self, out: Path, entries: dict[str, dict[str, Any]], journal: IO[str], way: dict[str, str]) -> None:
        self.out, self.entries, self.way = out, entries, way
        self._journal = journal

    def record(self, name: str, source: dict[str, str], outputs: dict[str, str]) -> None:
        """Record the files that are about to be renamed into OUT; the record is on disk when this
        returns.
        """
        self.entries[name] = {**source, **self.way, "outputs": outputs}
        self._journal.write(json.dumps({"name": name, "entry": self.entries[name]}) + "\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def made(self, name: str, source: dict[str, str], path: Path) -> bool:
        """Report whether `path` is the very file that was made from `source` (input, model,
        settings) under this name.
        """
        entry = self.entries.get(name)
        if entry is None or any(entry[key] != value for key, value in source.items()):
            return False
        return bool(entry["outputs"].get(path.relative_to(self.out).as_posix()) == sha256(path))


@contextmanager
def open_manifest(out: Path, way: dict[str, str], share: tuple[int, int] = (0, 1)) -> Iterator[Manifest]:
    """Lock the folder for this process; whatever ends the block, merge what was recorded into
    OUT/manifest.json.

    Entries are appended to a journal before the outputs get their names. So after a kill at any
    moment each file in OUT is either known or foreign, and the next run merges the journal.

    Args:
        out: the folder; made where it is missing.
        way: runtime and precision, noted in each entry.
        share: (rank, world): several processes hold the folder together, each with a journal of its
            own.

    Raises:
        BusyError: another process predicts into the folder.
        DataError: the manifest is damaged, or OUT is no folder.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: cannot be made a folder ({error.strerror}); choose another --out") from None
    rank, world = share
    own = out / (JOURNAL if world == 1 else f".manifest.{rank}-{world}.jsonl")
    with _locked(out, out, shared=world > 1):
        # What a killed process left, before anything is written behind its last line, which may be cut.
        _fold(out, world)
        with _journal(own, out) as journal:
            manifest = Manifest(out, _entries(out), journal, way)
            try:
                yield manifest
            finally:
                try:
                    journal.flush()
                    _fold(out, world, own)
                except OSError as error:
                    what = f"{out / NAME}: cannot be written ({error.strerror}); make room and run it again"
                    raise DataError(f"{what}: what is done is known from {own.name}") from None


@contextmanager
def _locked(path: Path, out: Path, *, shared: bool = False) -> Iterator[None]:
    """Lock a file or folder; BusyError where another process holds it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        busy = f"{out}: another process is predicting into this folder; wait for it or choose another --out"
        with locked(handle, shared=shared, busy=busy):
            yield
    finally:
        os.close(handle)


@contextmanager
def _journal(own: Path, out: Path) -> Iterator[IO[str]]:
    """Open and lock this process's journal until the block ends."""
    while True:
        with own.open("a", encoding="utf-8") as journal, _locked(own, out):
            # Who folds journals that nobody holds may have deleted it in between.
            if own.exists() and os.path.samestat(own.stat(), os.fstat(journal.fileno())):
                yield journal
                return


def _fold(out: Path, world: int, own: Path | None = None) -> None:
    """Merge this process's own journal, and those that nobody holds any more, into the manifest."""
    above = os.open(out.resolve().parent if world > 1 else out, os.O_RDONLY)
    try:
        # Who predicts alone holds OUT already.
        with locked(above) if world > 1 else nullcontext():
            entries, done = _read(out / NAME), []
            for journal in sorted(out.glob(JOURNALS)):
                try:
                    with nullcontext() if journal == own else _locked(journal, out):
                        entries |= _recorded(journal)
                        done.append(journal)
                except BusyError:
                    continue
            if done and entries:
                write_text(out / NAME, json.dumps(entries, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
            for journal in done:
                journal.unlink(missing_ok=True)
    finally:
        os.close(above)


def begun_with(out: Path, model: str) -> tuple[str, str] | None:
    """Return runtime (eager, onnxruntime 1.23.0, ...) and precision of what `out` holds from the
    model of this SHA-256.

    None where it holds nothing. DataError where the manifest is damaged.
    """
    found = [(entry.get("runtime", "eager"), entry.get("precision", "fp32")) for entry in _entries(out).values() if entry["model"] == model]
    return found[-1] if found else None


def _entries(out: Path) -> dict[str, dict[str, Any]]:
    # The journals first: what another process folds in between stands in the manifest by then.
    recorded: dict[str, dict[str, Any]] = {}
    for journal in sorted(out.glob(JOURNALS)):
        recorded |= _recorded(journal)
    return _read(out / NAME) | recorded


def _recorded(journal: Path) -> dict[str, dict[str, Any]]:
    try:
        text = journal.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    # A kill may have cut the last line; its outputs had no names yet.
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return {record["name"]: record["entry"] for record in map(json.loads, lines)}


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        valid = all(isinstance(entry["outputs"], dict) and {"input", "model", "settings"} <= entry.keys() for entry in entries.values())
    except (ValueError, TypeError, KeyError, AttributeError):
        valid = False
    if not valid:
        raise DataError(f"{path}: not a manifest of seenet predict; delete it or choose another --out")
    return dict(entries)
