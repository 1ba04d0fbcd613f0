"""Pictures that several tests of prediction share."""

from pathlib import Path

import pytest

from tests.prediction.doubles import draw


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(["a.png", "sub/b.png", "sub/c.bmp"]):
        draw(tmp_path / "photos" / name, number, (5 + number, 8))
    return tmp_path / "photos"
