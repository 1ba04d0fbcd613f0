"""The Python code of docs/deploy.md runs without seenet."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.data.shapes import SHAPES
from tests.prediction.bundles.red import CENTRES, write_red

DEPLOY = Path(__file__).parents[1] / "docs" / "deploy.md"


def test_python_without_seenet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_red(tmp_path / "street.onnx")
    Image.new("RGB", (20, 10), (round(CENTRES[2]), 0, 0)).save("street.jpg", quality=100)
    (block,) = re.findall(r"```python\n(.*?)```", DEPLOY.read_text(encoding="utf-8"), re.DOTALL)
    assert "seenet" not in re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)
    exec(compile(block, "deploy.md", "exec"), {})
    assert f"'{SHAPES.classes[2]}': 1.0" in capsys.readouterr().out
    with Image.open("mask.png") as mask:
        assert np.array_equal(np.unique(np.array(mask).reshape(-1, 3), axis=0), [SHAPES.colours[2]])
