"""A full or failing disk is said in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from seenet.core.errors import DataError


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """DataError with the folder and the reason where the block cannot write; safetensors has its own error for a full disk."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        what = f"{folder}: cannot be written ({error})"
        raise DataError(f"{what}; make room or give another --out; earlier checkpoints are whole, for --resume") from None
