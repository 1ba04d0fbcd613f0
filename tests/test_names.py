"""Names in a model's metadata never become paths outside the output folder."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.labels import LabelSet
from seenet.model import create_model
from seenet.model.files import save_model
from tests.cli.commands import run


def test_metadata_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, relative, absolute = tmp_path / "a/b/home", "../../../escaped", f"{tmp_path}/escaped"
    for folder in ("images", "masks"):
        (home / folder).mkdir(parents=True)
        for name in "01":
            ids = np.eye(9, 12, int(name), dtype=np.uint8)
            Image.fromarray(ids).save(home / folder / f"{name}.png")
    monkeypatch.chdir(home)
    labels = LabelSet(relative, (relative, absolute), ((1, 2, 3), (4, 5, 6)))
    notes = {"out": absolute, "name": relative, "split": relative}
    network = create_model("baseline", backbone="resnet10t", num_classes=2)
    save_model(home / "model.safetensors", network, labels, notes=notes)
    Path("seenet.yaml").write_text(
        f"decode: index\nval: 0\nclasses: ['{relative}', '{absolute}']\n"
    )
    before = set(tmp_path.rglob("*"))
    for command, options in (
        ("predict", "images --runtime eager --device cpu --out predicted"),
        ("eval", "data.kind=folder data.root=. --split train --device cpu --out scored"),
        ("export", "--out small.safetensors"),
    ):
        code, _, err = run(capsys, command, "model.safetensors", *options.split())
        assert code == 0, err
    new = {str(path.relative_to(home)) for path in set(tmp_path.rglob("*")) - before}
    assert {name for name in new if "/" not in name} == {"predicted", "scored", "small.safetensors"}
