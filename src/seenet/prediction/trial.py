"""Load a bundle in a child process first: a file that crashes a runtime, or eats the memory, ends that process alone.

Run as `python -m seenet.prediction.trial FILE` by `open_tried`; files that passed are remembered by hash.
"""

import hashlib
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from seenet.core.child import REFUSED, refuse, run_module
from seenet.core.errors import DataError, PassingError, SeenetError
from seenet.core.files import cache_folder, sha256
from seenet.core.processor import limit_memory
from seenet.prediction.bundle import Opened
from seenet.prediction.formats import bundle_files, format_of
from seenet.prediction.runtimes import open_bundle, require

TIMEOUT_SECONDS = 600
MEMORY_BYTES = 6 * 2**30
"""For the small picture, besides several times the file."""
SIDE = 64


def open_tried(path: Path, *, device: str = "auto", precision: str = "fp32") -> Opened:
    """`runtimes.open_bundle`, after a child process has loaded the file and segmented a grey square with it.

    Raises as `open_bundle`, DataError where that process took too much memory, PassingError where it crashed or took too much time.
    """
    packages = format_of(path).runs_with
    require(*packages)
    passed = cache_folder() / "tried" / _digest(path, packages)
    if not passed.exists():
        _try(path)
        # Where nothing can be remembered it is tried again next time.
        with suppress(OSError):
            passed.parent.mkdir(parents=True, exist_ok=True)
            passed.touch()
    return open_bundle(path, device=device, precision=precision)


def _digest(path: Path, packages: tuple[str, ...]) -> str:
    # By module: a package may come under another name (onnxruntime-gpu).
    versions = (f"{package} {getattr(import_module(package), '__version__', '')}" for package in packages)
    parts = [*map(sha256, _files(path)), *versions]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    """Those that are there of a bundle's one or two."""
    return [file for file in reversed(bundle_files(path)) if file.is_file()]


def _try(path: Path) -> None:
    try:
        ended = run_module("seenet.prediction.trial", path, timeout=TIMEOUT_SECONDS)
    except TimeoutError:
        raise PassingError(f"{path}: not loaded within {TIMEOUT_SECONDS} s; refused, export it again") from None
    if ended.code == REFUSED:
        raise DataError(ended.message)
    if ended.code:
        raise PassingError(f"{path}: loading it crashes the runtime (a trial process ended with {ended.how}); refused, export it again")


def main() -> None:
    path = Path(sys.argv[1])
    limit = MEMORY_BYTES + 8 * sum(file.stat().st_size for file in _files(path))
    limit_memory(limit)
    try:
        opened = open_bundle(path)
        import numpy as np

        scores, _ = opened.run(np.full((1, SIDE, SIDE, len(opened.card.mean)), 128, np.uint8))
        expected: Any = (1, opened.card.labels.num_classes, SIDE, SIDE)
        if scores.shape != expected:
            raise DataError(f"{path}: scores of shape {scores.shape} for one {SIDE}x{SIDE} picture, expected {expected}; export it again")
    except SeenetError as error:
        refuse(str(error))
    except MemoryError:
        refuse(f"{path}: takes more than {limit} bytes of memory for one {SIDE}x{SIDE} picture; refused, export it again")


if __name__ == "__main__":
    main()
