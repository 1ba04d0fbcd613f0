"""Pictures of bands, from a folder to an exported model, by the commands alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image

from seenet.core.picture_reader import PictureReader
from seenet.model.files import load_model
from seenet.prediction.loading import load
from tests.cli.commands import run
from tests.data.bands import MADE
from tests.data.layouts import LAYOUTS
from tests.data.reading import write


def stored(path: Path) -> np.ndarray:
    """Read a mask as it was written: a PNG, or a GeoTIFF of a georeferenced picture."""
    if path.suffix == ".png":
        return np.asarray(Image.open(path))
    with rasterio.open(path) as file:
        values: np.ndarray = file.read(1)
        return values


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_from_folder_to_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    root, _ = write(tmp_path, LAYOUTS[name])
    trained, bundle = tmp_path / "run", tmp_path / "exported.onnx"
    small = ["training.steps=1", "training.batch=2", "transforms.crop=64"]
    plain = ["--runtime", "eager", "--precision", "fp32"]
    for command in (
        ["data", "init", root],
        ["data", "check", "folder-lite0", f"data.root={root}"],
        ["train", "folder-lite0", f"data.root={root}", "--out", trained, *small],
        ["eval", trained],
        ["predict", trained, root / "images", "--out", tmp_path / "masks", *plain],
        ["report", trained],
        ["data", "show", trained / "recipe.yaml", "--out", tmp_path / "page"],
        ["figure", "heat", trained, root / "images", "--out", tmp_path / "heat"],
        ["figure", "attention", trained, root / "images", "--out", tmp_path / "attention"],
        ["export", trained, "--format", "onnx", "--out", bundle],
        ["eval", bundle, trained / "recipe.yaml", "--out", tmp_path / "scores"],
    ):
        code, out, err = run(capsys, *command)
        assert code == 0, out + err
    # What the file says is what the model keeps, and its export.
    about = yaml.safe_load((root / "seenet.yaml").read_text())
    reader = PictureReader.from_json({key: about.get(key) for key in ("channels", "value_range")})
    model, exported = (load(path, device="cpu") for path in (trained, bundle))
    assert reader.count == max(MADE[name][0], 3 if reader.channels is None else 1)
    assert model.reader == exported.reader == reader
    if about.get("mean"):
        network = load_model(trained / "model.safetensors").model
        assert network.normalization.mean == tuple(about["mean"])
    # Validation, `eval` and the export count alike; `predict` writes what the predictor returns.
    results = [trained / "eval" / "val" / "result.json", tmp_path / "scores" / "result.json"]
    scores = [json.loads(path.read_text())["miou"] for path in results]
    validated = json.loads((trained / "val.json").read_text())["miou"]
    assert scores[0] == validated
    assert abs(scores[0] - scores[1]) < 0.1
    for path in sorted((root / "images").iterdir())[:3]:
        mask = stored(next((tmp_path / "masks" / "masks").glob(f"{path.stem}.*")))
        assert np.array_equal(mask, model(path).mask)
        assert np.array_equal(mask, model.mask(reader(path)))
