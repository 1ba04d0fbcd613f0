"""Functions for notebooks: settings objects in, results of the commands out."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import seenet
from seenet.core.settings import Recipe
from seenet.data.shapes import SHAPES
from seenet.export import run
from seenet.model import create_model
from seenet.model.files import save_model

RECIPE = Recipe.model_validate(
    {
        "data": {"kind": "shapes", "size": 48, "count": 20},
        "model": {"backbone": "resnet18", "width": 8, "p_out": 16, "output_stride": 32},
        "transforms": {"crop": 48},
        "training": {"steps": 1, "batch": 2, "workers": 0},
    }
)

EXPORT_IS_FUNCTION_AND_PACKAGE = """
import sys
{first}
import seenet
from seenet.export.bundle_cache import bundle
assert callable(seenet.export)
assert seenet.export is sys.modules["seenet.export"]
assert seenet.export.bundle_cache.bundle is bundle
"""


@pytest.mark.parametrize(
    "first",
    [
        "import seenet.export.bundle_cache",
        "import seenet; seenet.export",
        "from seenet import export",
    ],
)
def test_export_is_function_and_package_in_any_order(first: str) -> None:
    program = EXPORT_IS_FUNCTION_AND_PACKAGE.format(first=first)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_all_public_names_exist() -> None:
    for name in seenet.__all__:
        assert getattr(seenet, name) is not None
    with pytest.raises(AttributeError, match="exprot"):
        _ = seenet.exprot  # type: ignore[attr-defined]


def test_export_returns_the_result_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_export(*arguments: object, **options: object) -> SimpleNamespace:
        return SimpleNamespace(result=lambda: (arguments, options))

    monkeypatch.setattr(run, "run_export", run_export)
    out = tmp_path / "a.onnx"
    expected = ("camvid-lite0", out, "onnx"), {"recipe": RECIPE}
    assert seenet.export("camvid-lite0", out, recipe=RECIPE) == expected


def test_evaluate_accepts_settings(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, out = tmp_path / "model.safetensors", tmp_path / "scored"
    network = create_model(**RECIPE.model.model_dump(), num_classes=SHAPES.num_classes)
    save_model(path, network, SHAPES)
    result = seenet.evaluate(path, RECIPE, out=out, device="cpu")
    assert result["images"] == 50
    assert json.loads((out / "result.json").read_text()) == json.loads(json.dumps(result))


@pytest.mark.slow
def test_train_and_export_accept_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = seenet.train(RECIPE, device="cpu")
    assert (result.out, result.steps) == (Path("runs/shapes"), 1)
    found = seenet.export(result.out, "shapes.onnx", recipe=RECIPE)
    assert found["miou"]["images"] == 50
    assert found["argmax_agreement"] > 0.9999
    assert seenet.load("shapes.onnx").labels == SHAPES
