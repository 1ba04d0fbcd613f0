"""Validation: what it keeps, and cut short it is repeated."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from seenet.core.errors import Stopped
from seenet.model.files import load_model
from seenet.prediction.predictor import Predictor
from seenet.training.trainer import train
from tests.training.test_trainer import losses, recipe


def lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what is of the clock and the machine."""
    timing = {"images_per_s", "memory_mib", "waited"}
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timing} for line in found]


@pytest.mark.parametrize("step", [3, 6])
def test_validation_cut_short_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    train(recipe(), tmp_path / "whole", device="cpu")
    seen = []

    def stripes(self: Predictor, *arguments: Any) -> Iterator[torch.Tensor]:
        seen.append(0)
        if len(seen) == (10 if step == 3 else 60):  # 50 pictures a validation
            signal.raise_signal(signal.SIGTERM)
        return honest(self, *arguments)

    honest = Predictor.stripes
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "stripes", stripes)
        with pytest.raises(Stopped, match="while validating") as caught:
            train(recipe(), tmp_path / "cut", device="cpu")
    assert caught.value.exit_code == 143
    assert len(seen) == (10 if step == 3 else 60)
    assert len(losses(tmp_path / "cut")) == step
    train(recipe(), tmp_path / "cut", resume=True, device="cpu")
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert [line["step"] for line in lines(tmp_path / "cut") if "val" in line] == [3, 6]
    for name in ("model.safetensors", "model-last.safetensors", "checkpoints/step-00000006/optimizer.safetensors"):
        first, second = load_file(tmp_path / "whole" / name), load_file(tmp_path / "cut" / name)
        assert all(torch.equal(first[key], second[key]) for key in first | second)


def test_validation_names_its_model_and_command(tmp_path: Path) -> None:
    train(recipe("training.steps=1"), tmp_path / "run", device="cpu", command="seenet train shapes")
    result = json.loads((tmp_path / "run" / "val.json").read_text())
    saved = load_model(tmp_path / "run")
    assert result["model"] == {"file": "model.safetensors", "sha256": saved.sha256}
    assert result["command"] == saved.notes["command"] == "seenet train shapes"
    assert str(saved.notes["torch"]) == torch.__version__.partition("+")[0]
