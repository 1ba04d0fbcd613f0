"""Load a bundle in a child process first: a hostile file ends only that process.

`open_tried` runs `python -m seenet.prediction.bundles.trial FILE`; files that passed are remembered
by their hash.
"""

import hashlib
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np

from seenet.core.child import REFUSED, refuse, run_module
from seenet.core.errors import DataError, PassingError, SeenetError
from seenet.core.files import cache_folder, sha256
from seenet.core.processor import limit_memory
from seenet.prediction.bundles.bundle import Opened
from seenet.prediction.bundles.formats import bundle_files, format_of
from seenet.prediction.bundles.runtimes import open_bundle, require

TIMEOUT_SECONDS = 600
MEMORY_BYTES = 6 * 2**30
"""Memory for the small picture, besides several times the file."""
SIDE = 64


def open_tried(path: Path, *, device: str = "auto", precision: str = "fp32") -> Opened:
    """Open a bundle after a child process has loaded it and segmented a grey square with it.

    Raises:
        DataError: As `open_bundle`, or the child process used too much memory.
        PassingError: The child process crashed or took too long.
        UsageError: As `open_bundle`.
    """
    packages = format_of(path).runs_with
    require(*packages)
    # By module: the package may have another name (onnxruntime-gpu).
    versions = (f"{name} {getattr(import_module(name), '__version__', '')}" for name in packages)
    parts = [*map(sha256, reversed(_existing_files(path))), *versions]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    passed = cache_folder() / "tried" / key
    if not passed.exists():
        _try(path)
        # If the cache cannot be written, the file is tried again next time.
        with suppress(OSError):
            passed.parent.mkdir(parents=True, exist_ok=True)
            passed.touch()
    return open_bundle(path, device=device, precision=precision)


def _existing_files(path: Path) -> list[Path]:
    return [file for file in bundle_files(path) if file.is_file()]


def _try(path: Path) -> None:
    try:
        ended = run_module(__name__, path, timeout=TIMEOUT_SECONDS)
    except TimeoutError:
        raise PassingError(
            f"{path}: not loaded within {TIMEOUT_SECONDS} s; refused, export it again"
        ) from None
    if ended.code == REFUSED:
        raise DataError(ended.message)
    if ended.code:
        raise PassingError(
            f"{path}: loading it crashes the runtime (a trial process ended with {ended.how}); "
            "refused, export it again"
        )


def main() -> None:
    path = Path(sys.argv[1])
    limit = MEMORY_BYTES + 8 * sum(file.stat().st_size for file in _existing_files(path))
    limit_memory(limit)
    try:
        opened = open_bundle(path)
        scores, _ = opened.run(np.full((1, SIDE, SIDE, len(opened.card.mean)), 128, np.uint8))
        expected = (1, opened.card.labels.num_classes, SIDE, SIDE)
        if scores.shape != expected:
            raise DataError(
                f"{path}: scores of shape {scores.shape} for one {SIDE}x{SIDE} picture, expected "
                f"{expected}; export it again"
            )
    except SeenetError as error:
        refuse(str(error))
    except MemoryError:
        refuse(
            f"{path}: takes more than {limit} bytes of memory for one {SIDE}x{SIDE} picture; "
            "refused, export it again"
        )


if __name__ == "__main__":
    main()
