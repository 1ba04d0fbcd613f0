"""What notebooks call: settings objects in, what the commands print out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import seenet
from seenet.core.errors import UsageError
from seenet.core.recipe_files import load_recipe
from seenet.core.settings import Recipe
from seenet.data.shapes import SHAPES

SHAPES_RECIPE = {
    "data": {"kind": "shapes", "size": 48, "count": 20},
    "model": {"backbone": "resnet18", "width": 8, "p_out": 16, "output_stride": 32},
    "transforms": {"crop": 48},
    "training": {"steps": 1, "batch": 2, "workers": 0},
}

EITHER_WAY = """
import sys
{first}
import seenet
from seenet.export.bundle_cache import bundle
assert callable(seenet.export), "no function"
assert seenet.export is sys.modules["seenet.export"]
assert seenet.export.bundle_cache.bundle is bundle, "no package"
"""


@pytest.mark.parametrize("first", ["import seenet.export.bundle_cache", "import seenet; seenet.export", "from seenet import export"])
def test_export_is_the_function_and_the_package_whichever_comes_first(first: str) -> None:
    done = subprocess.run([sys.executable, "-c", EITHER_WAY.format(first=first)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_settings_are_a_recipe_that_is_read() -> None:
    recipe = Recipe.model_validate(SHAPES_RECIPE)
    assert load_recipe(recipe) is recipe
    changed = load_recipe(recipe, ["training.steps=7"])
    assert (changed.training.steps, changed.data, changed.model) == (7, recipe.data, recipe.model)
    with pytest.raises(UsageError, match=r"settings: training\.stepz: unknown setting"):
        load_recipe(recipe, ["training.stepz=7"])


def test_all_that_is_offered_is_there() -> None:
    for name in seenet.__all__:
        assert getattr(seenet, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'exprot'"):
        _ = seenet.exprot  # type: ignore[attr-defined]


def test_export_returns_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seenet.export import run

    asked = {}

    class Report:
        def result(self) -> dict[str, int]:
            return {"checked": 1}

    def run_export(model: str, out: Path, kind: str, **options: object) -> Report:
        asked.update(model=model, out=out, kind=kind, **options)
        return Report()

    monkeypatch.setattr(run, "run_export", run_export)
    recipe = Recipe.model_validate(SHAPES_RECIPE)
    assert seenet.export("camvid-lite0", tmp_path / "a.onnx", recipe=recipe) == {"checked": 1}
    assert asked == {"model": "camvid-lite0", "out": tmp_path / "a.onnx", "kind": "onnx", "recipe": recipe}


def test_evaluate_takes_the_settings_object(tmp_path: Path) -> None:
    import torch

    from seenet.model import create_model
    from seenet.model.files import save_model

    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    save_model(path, create_model(backbone="resnet18", num_classes=6, width=8, p_out=16, output_stride=32), SHAPES)
    result = seenet.evaluate(path, Recipe.model_validate(SHAPES_RECIPE), out=tmp_path / "scored", device="cpu")
    assert result["images"] == 50
    assert json.loads((tmp_path / "scored" / "result.json").read_text()) == json.loads(json.dumps(result))


@pytest.mark.slow
def test_train_and_export_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.model_validate(SHAPES_RECIPE)
    result = seenet.train(recipe, device="cpu")
    assert (result.out, result.steps) == (Path("runs/shapes"), 1)
    found = seenet.export(result.out, "shapes.onnx", recipe=recipe)
    assert found["miou"]["images"] == 50
    assert found["argmax_agreement"] > 0.9999
    assert seenet.load("shapes.onnx").labels == SHAPES
