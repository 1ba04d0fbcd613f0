"""The output files of a picture: which exist, which are missing, and how they are written."""

import errno
import json
import os
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seenet.core.errors import DataError
from seenet.core.files import digest, replacing, sha256
from seenet.prediction.base import BasePredictor
from seenet.prediction.manifest import Manifest, VersionedBackend, backend_of
from seenet.prediction.pictures import Input
from seenet.prediction.raster import StoredResult
from seenet.prediction.result import Result, output_paths

FORMAT = 2
"""Increase it when the same settings give other files than before, so that old files are not taken
for new ones.
"""


@dataclass(frozen=True)
class Outputs:
    """Output files of a job's pictures, in the folder of `manifest`.

    Args:
        manifest: Record of what each file was made from.
        accepted: Hashes of the settings whose files count as done.
        probabilities: Write probabilities too.
        overwrite: Replace files that were made from something else.
    """

    manifest: Manifest
    accepted: Collection[str]
    probabilities: bool
    overwrite: bool

    def paths(self, item: Input) -> list[Path]:
        """Return the paths of a picture's files."""
        return output_paths(self.manifest.out, item.name, self.probabilities, windows=item.windows)

    def pending(self, inputs: list[Input], source: dict[str, str]) -> list[Input]:
        """Return the inputs that lack a file made from them with the model of `source`.

        Raises:
            DataError: Another file exists where an output would be written, without `overwrite`.
                Nothing has been written yet.
        """
        pending, foreign = [], []
        for item in inputs:
            paths = self.paths(item)
            existing = [path for path in paths if os.path.lexists(path)]
            try:
                whole = {**source, "input": sha256(item.path)} if existing else source
            except OSError:
                # An unreadable picture is reported with the others that fail.
                pending.append(item)
                continue
            others = self._foreign(item, existing, whole)
            foreign += others
            if others or len(existing) < len(paths):
                pending.append(item)
        if foreign and not self.overwrite:
            more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
            raise DataError(
                f"{foreign[0]}{more}: exists already and was not made from the same picture, model "
                "and settings; use --overwrite or another --out"
            )
        return pending

    def save(self, result: Result | StoredResult, item: Input, source: dict[str, str]) -> None:
        """Write a result's files under temporary names, record them, then rename them.

        Raises:
            DataError: A file cannot be written, or one appeared since `pending`, without
                `overwrite`. Of kind `name` where only this picture's name is at fault.
        """
        out, paths = self.manifest.out, self.paths(item)
        existing = [] if self.overwrite else [path for path in paths if os.path.lexists(path)]
        if foreign := self._foreign(item, existing, source):
            raise DataError(
                f"{foreign[0]}: created by another program since this prediction began; "
                "use --overwrite or another --out"
            )
        try:
            with ExitStack() as stack:
                hashes = {}
                for path in paths:
                    relative = path.relative_to(out)
                    temporary = stack.enter_context(replacing(path))
                    result.write(relative.parts[0], temporary)
                    hashes[relative.as_posix()] = sha256(temporary)
                self.manifest.record(item.name, source, hashes)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise DataError(
                    f"{item.path}: its outputs' names are too long here",
                    fix="give it a shorter one",
                    kind="name",
                ) from None
            reason = error.strerror or error
            raise DataError(
                f"{out}: cannot write {item.name} ({reason}); make room or choose another --out"
            ) from None

    def _foreign(self, item: Input, existing: list[Path], source: dict[str, str]) -> list[Path]:
        return [
            path
            for path in existing
            if not self.manifest.made(item.name, source, self.accepted, path)
        ]


def source_of(predictor: BasePredictor) -> dict[str, str]:
    """Return what the manifest records of a predictor: model and settings by hash, and backend."""
    settings = predictor.settings
    return {
        "model": str(predictor.info["sha256"]),
        "settings": _settings_hash(settings),
        "runtime": settings.get("runtime", "eager"),
        "precision": predictor.precision,
    }


def accepted_settings(
    predictor: BasePredictor, manifest: Manifest, accepts: Callable[[VersionedBackend], bool]
) -> set[str]:
    """Return the hashes of the settings whose outputs count as done.

    These are the predictor's own settings, and the same with another backend that the manifest
    holds and `accepts` allows.
    """
    own = predictor.settings
    backends = filter(accepts, {backend_of(entry) for entry in manifest.entries.values()})
    return {_settings_hash(own)} | {
        _settings_hash({**own, "runtime": runtime, "precision": precision})
        for runtime, precision in backends
    }


def _settings_hash(settings: dict[str, Any]) -> str:
    # The eager runtime is not among the settings of its predictor.
    named = {key: value for key, value in settings.items() if (key, value) != ("runtime", "eager")}
    return digest(json.dumps({**named, "format": FORMAT}, sort_keys=True))
