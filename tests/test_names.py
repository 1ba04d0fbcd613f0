"""Names in a model's metadata never become paths outside the output folder."""

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


def test_metadata_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "deep" / "down" / "home"
    for folder in ("images", "masks"):
        (home / "data" / folder).mkdir(parents=True)
    monkeypatch.chdir(home)
    escape, relative = f"{tmp_path}/escaped", "../../../escaped"
    labels = LabelSet(relative, (relative, escape), ((1, 2, 3), (4, 5, 6)))
    notes = {"out": escape, "name": relative, "split": relative}
    network = create_model("baseline", backbone="resnet10t", num_classes=2)
    save_model(home / "model.safetensors", network, labels, notes=notes)
    for number in range(2):
        mask = np.eye(9, 12, dtype=np.uint8)
        Image.new("RGB", (12, 9), (number, 0, 0)).save(f"data/images/{number}.png")
        Image.fromarray(mask).save(f"data/masks/{number}.png")
    Path("data/seenet.yaml").write_text(
        f"decode: index\nval: 0\nclasses: ['{relative}', '{escape}']\n"
    )
    before = set(tmp_path.rglob("*"))
    predict_files(load("model.safetensors", "cpu"), [Path("data/images")], Path("predicted"))
    data = ["data.kind=folder", "data.root=data"]
    out = Path("scored")
    run_evaluation("model.safetensors", None, data, split="train", device="cpu", out=out)
    export_half("model.safetensors", Path("small.safetensors"))
    new = {str(path.relative_to(home)) for path in set(tmp_path.rglob("*")) - before}
    assert {name for name in new if "/" not in name} == {"predicted", "scored", "small.safetensors"}
