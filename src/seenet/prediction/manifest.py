"""The manifest of a folder of predictions: what each file was made from.

With it a second run does only what is missing, and overwrites nothing that it did not make.
"""

import json
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from seenet.core.errors import BusyError, DataError
from seenet.core.files import sha256, write_text, writing_to
from seenet.core.locks import locked

NAME = "manifest.json"
JOURNALS = ".manifest*.jsonl"

VersionedBackend = tuple[str, str]
"""Runtime (eager, or onnxruntime or openvino with its version) and precision."""


class Manifest:
    """Record of the outputs in a folder, by output name.

    An entry is {"input", "model", "settings": SHA-256 each, "runtime", "precision", "outputs":
    {path in the folder: SHA-256}}.
    """

    def __init__(self, out: Path, entries: dict[str, dict[str, Any]], journal: IO[str]) -> None:
        self.out, self.entries = out, entries
        self._journal = journal

    def record(self, name: str, source: dict[str, str], outputs: dict[str, str]) -> None:
        """Record files that are about to be renamed; the record is on disk when this returns."""
        self.entries[name] = {**source, "outputs": outputs}
        self._journal.write(json.dumps({"name": name, "entry": self.entries[name]}) + "\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def made(
        self, name: str, source: dict[str, str], settings: Collection[str], path: Path
    ) -> bool:
        """Return whether `path` is unchanged since it was made under this name.

        Args:
            name: Output name.
            source: The input and model that it must have been made from.
            settings: Hashes of settings, one of which it must have been made with.
            path: The file.
        """
        entry = self.entries.get(name)
        if (
            entry is None
            or entry["settings"] not in settings
            or any(entry[key] != source[key] for key in ("input", "model"))
        ):
            return False
        recorded = entry["outputs"].get(path.relative_to(self.out).as_posix())
        return path.is_file() and recorded == sha256(path)


@contextmanager
def open_manifest(out: Path, share: tuple[int, int] = (0, 1)) -> Iterator[Manifest]:
    """Open the folder for this process, and merge its journal into the manifest at the end.

    Entries are appended to a journal before the outputs get their names. So after a kill at any
    moment each file is either recorded or foreign, and the next run merges the journal. A process
    holds a lock on its journal, and one on the folder while it opens or merges journals.

    Args:
        out: The folder; created if it is missing.
        share: (rank, world): Several processes use the folder together, each with its own journal.

    Raises:
        BusyError: Another process predicts into the folder.
        DataError: The manifest is damaged or cannot be written, or `out` is not a folder.
    """
    with writing_to(out, "choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
    rank, world = share
    own, *others = (
        out / f".manifest.{(rank + shift) % world}-{world}.jsonl" for shift in range(world)
    )
    held = ExitStack()
    with _locked(out):
        entries = _merge_journals(out)
        # What remains is held by living processes.
        if not set(out.glob(JOURNALS)) <= set(others):
            raise BusyError(
                f"{out}: another process predicts into this folder; wait for it or choose another "
                "--out"
            )
        journal = held.enter_context(own.open("a", encoding="utf-8"))
        held.enter_context(locked(journal.fileno()))
    try:
        yield Manifest(out, entries, journal)
    finally:
        fix = f"make room and run it again: what is done is recorded in {own.name}"
        with writing_to(out / NAME, fix):
            held.close()
            with _locked(out):
                _merge_journals(out)


@contextmanager
def _locked(path: Path, *, busy: str | None = None) -> Iterator[None]:
    """Lock a file or folder; with `busy` raise BusyError of that text if it is held."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with locked(handle, busy=busy):
            yield
    finally:
        os.close(handle)


def _merge_journals(out: Path) -> dict[str, dict[str, Any]]:
    """Merge the journals that no process holds into the manifest, and return its entries.

    Call it with the folder locked.
    """
    entries, merged = _read(out / NAME), []
    for journal in sorted(out.glob(JOURNALS)):
        with suppress(BusyError), _locked(journal, busy="held"):
            entries |= _recorded(journal)
            merged.append(journal)
    if merged and entries:
        text = json.dumps(entries, indent=1, sort_keys=True, ensure_ascii=False)
        write_text(out / NAME, text + "\n")
    for journal in merged:
        journal.unlink()
    return entries


def recorded_backends(out: Path, model: str) -> list[VersionedBackend]:
    """Return the backends of the outputs that a folder holds from a model, each once.

    Args:
        out: The folder; it need not exist.
        model: SHA-256 of the model file.

    Raises:
        DataError: The manifest is damaged.
    """
    # The journals first: one that another process merges meanwhile is then in the manifest.
    recorded: dict[str, dict[str, Any]] = {}
    for journal in sorted(out.glob(JOURNALS)):
        with suppress(FileNotFoundError):
            recorded |= _recorded(journal)
    entries = _read(out / NAME) | recorded
    found = (backend_of(entry) for entry in entries.values() if entry["model"] == model)
    return list(dict.fromkeys(found))


def backend_of(entry: dict[str, Any]) -> VersionedBackend:
    """Return the backend that an entry was made with."""
    return entry.get("runtime", "eager"), entry.get("precision", "fp32")


def _recorded(journal: Path) -> dict[str, dict[str, Any]]:
    # A kill may have cut the last line; its outputs had no names yet.
    lines = journal.read_text(encoding="utf-8").split("\n")[:-1]
    return {record["name"]: record["entry"] for record in map(json.loads, lines)}


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        valid = all(
            isinstance(entry["outputs"], dict) and {"input", "model", "settings"} <= entry.keys()
            for entry in entries.values()
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        valid = False
    if not valid:
        raise DataError(
            f"{path}: not a manifest of seenet predict; delete it or choose another --out"
        )
    return dict(entries)
