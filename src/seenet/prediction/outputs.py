"""The files of `seenet predict`: what is there already, and how new ones get there."""

import errno
import os
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path

from seenet.core import files
from seenet.core.errors import DataError
from seenet.core.files import replacing, sha256
from seenet.prediction.inputs import Input
from seenet.prediction.manifest import Manifest
from seenet.prediction.raster_mask import StoredResult
from seenet.prediction.result import Result, output_paths


def to_do(
    inputs: list[Input], manifest: Manifest, source: dict[str, str], settings: Collection[str], *, probabilities: bool, overwrite: bool
) -> list[Input]:
    """Inputs whose outputs are not all there already, made from the same picture and the model of `source` by one of `settings`.

    Raises DataError where another file stands where an output would, unless `overwrite`: before anything is written.
    """
    missing, foreign = [], []
    for item in inputs:
        paths = output_paths(manifest.out, item.name, probabilities, windows=item.windows)
        there = [path for path in paths if os.path.lexists(path)]
        try:
            whole = {**source, "input": sha256(item.path)} if there else source
        except OSError:
            # It cannot be read: that is told, with the others that fail, when its turn comes.
            missing.append(item)
            continue
        strange = [path for path in there if not path.is_file() or not manifest.made(item.name, whole, settings, path)]
        foreign += strange
        if strange or len(there) < len(paths):
            missing.append(item)
    if foreign and not overwrite:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        raise DataError(
            f"{foreign[0]}{more}: exists already and was not made from the same picture, model and settings; "
            "use --overwrite or another --out"
        )
    return missing


def save(
    result: Result | StoredResult,
    item: Input,
    source: dict[str, str],
    manifest: Manifest,
    settings: Collection[str],
    *,
    probabilities: bool,
    overwrite: bool,
) -> None:
    """Write a result's files beside their names, record them, then give them their names; what is replaced is of one of `settings`.

    DataError: one of them cannot be written; of kind `name` where that is this picture's fault alone.
    """
    name = item.name
    paths = output_paths(manifest.out, name, probabilities, windows=item.windows)
    # Looked at before the run too; this is for what came since.
    strange = [path for path in paths if os.path.lexists(path) and not overwrite and not manifest.made(name, source, settings, path)]
    if strange:
        raise DataError(f"{strange[0]}: came to be while predicting; use --overwrite or another --out")
    try:
        with ExitStack() as stack:
            hashes = {}
            for path in paths:
                temporary = stack.enter_context(replacing(path))
                result.write(path.parent.relative_to(manifest.out).parts[0], temporary)
                hashes[path.relative_to(manifest.out).as_posix()] = sha256(temporary)
            manifest.record(name, source, hashes)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DataError(f"{item.path}: its outputs' names are too long here", fix="give it a shorter one", kind="name") from None
        reason = error.strerror or error
        raise DataError(f"{manifest.out}: cannot write {name} ({reason}); make room or choose another --out") from None


def remove_leftovers(out: Path, names: Iterable[str]) -> None:
    """Delete temporary files that a killed run left beside the outputs of these names."""
    files.remove_leftovers(path for name in names for windows in (False, True) for path in output_paths(out, name, True, windows=windows))
