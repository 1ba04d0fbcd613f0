"""A folder for the tests of `--runtime auto`."""

from pathlib import Path

import pytest

from seenet.core import processor
from tests.export.choosing import draw_pictures


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with pictures, and a model file that is never read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processor, "has_bf16", lambda: False)
    Path("model.safetensors").write_bytes(b"a model")
    draw_pictures(6)
    return tmp_path
