"""Hostile files that only a runtime finds out end the trial process alone (bar X5)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seenet.cli import main
from seenet.core.errors import DataError
from seenet.prediction.loading import load
from tests.prediction.bundles import hostile
from tests.prediction.bundles.red import write_red


@pytest.mark.parametrize(
    "edit", [hostile.huge, hostile.negative, hostile.huge_constant, hostile.unknown_type, hostile.grows, hostile.wrong_shape]
)
def test_refused_in_one_line(edit: Callable[[Any], None], tmp_path: Path) -> None:
    path = write_red(tmp_path / "hostile.onnx", edit=edit)
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_refused_once_refused_again(tmp_path: Path) -> None:
    """Only what passed is remembered, and nothing is written of what did not."""
    path = write_red(tmp_path / "hostile.onnx", edit=hostile.wrong_shape)
    for _ in range(2):
        with pytest.raises(SystemExit) as caught:
            main(["predict", str(path), str(tmp_path), "--out", str(tmp_path / "out")])
        assert caught.value.code == 4
    assert not (tmp_path / "out").exists()
