"""Names that a file brings along never become paths outside the folder that was asked for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.labels import LabelSet
from seenet.evaluation.run import run_evaluation
from seenet.export.torch import export_half
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction.batch import predict_files
from seenet.prediction.loading import load


def files(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


def test_metadata_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "deep" / "down" / "home"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    escape = f"{tmp_path}/escaped"
    labels = LabelSet("../../../escaped", ("../../../escaped", escape), ((1, 2, 3), (4, 5, 6)))
    network = create_model("baseline", backbone="resnet10t", num_classes=2)
    save_model(home / "model.safetensors", network, labels, notes={"out": escape, "name": "../../escaped", "split": "../../x"})
    (home / "data" / "images").mkdir(parents=True)
    (home / "data" / "masks").mkdir()
    for number in range(2):
        Image.fromarray(np.full((9, 12, 3), 40 * number, np.uint8)).save(home / "data" / "images" / f"{number}.png")
        Image.fromarray(np.eye(9, 12, dtype=np.uint8)).save(home / "data" / "masks" / f"{number}.png")
    classes = f"'{labels.classes[0]}', '{escape}'"
    (home / "data" / "seenet.yaml").write_text(f"decode: index\nval: 0\nclasses: [{classes}]\n")
    before = files(tmp_path)
    predict_files(load("model.safetensors", "cpu"), [Path("data/images")], Path("predicted"))
    overrides = ["data.kind=folder", "data.root=data"]
    run_evaluation("model.safetensors", None, overrides, split="train", device="cpu", out=Path("scored"))
    export_half("model.safetensors", Path("small.safetensors"))
    new = {path.relative_to(home).parts[0] if home in path.parents else str(path) for path in files(tmp_path) - before}
    assert new - {"cache"} == {"predicted", "scored", "small.safetensors"}
