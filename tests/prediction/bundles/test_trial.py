"""Hostile files that only a runtime finds out end the trial process alone (bar X5)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seenet.core.errors import DataError
from seenet.prediction.loading import load
from tests.prediction.bundles import hostile
from tests.prediction.bundles.red import write_red
from tests.prediction.doubles import seenet_command


@pytest.mark.parametrize(
    "edit",
    [
        hostile.huge,
        hostile.negative,
        hostile.huge_constant,
        hostile.unknown_type,
        hostile.grows,
        hostile.wrong_shape,
    ],
)
def test_hostile_files_are_refused_in_one_line(edit: Callable[[Any], None], tmp_path: Path) -> None:
    path = write_red(tmp_path / "hostile.onnx", edit=edit)
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_refused_file_is_refused_again(tmp_path: Path) -> None:
    """Only files that passed are remembered."""
    path, out = write_red(tmp_path / "hostile.onnx", edit=hostile.wrong_shape), tmp_path / "out"
    for _ in range(2):
        assert seenet_command("predict", path, tmp_path, "--out", out) == 4
    assert not out.exists()
