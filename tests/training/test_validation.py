"""Validation: what it writes, and that it is repeated after an interruption."""

import json
from pathlib import Path

import pytest
import torch

from seenet.core.errors import Stopped
from seenet.data.sampling import TrainingSet
from seenet.model.files import load_model
from seenet.prediction.predictor import Predictor
from seenet.training.trainer import train
from tests.training.tiny import lines, losses, recipe, same_models, same_weights, signal_in


@pytest.mark.parametrize(("step", "image"), [(3, 10), pytest.param(6, 60, marks=pytest.mark.slow)])
def test_an_interrupted_validation_is_repeated(tmp_path: Path, step: int, image: int) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(recipe(), whole, device="cpu")
    # 50 images per validation.
    interrupted = signal_in(image, kind=Predictor, method="row_chunks")
    with interrupted, pytest.raises(Stopped, match="while validating") as caught:
        train(recipe(), cut, device="cpu")
    assert caught.value.exit_code == 143
    assert len(losses(cut)) == step
    train(recipe(), cut, resume=True, device="cpu")
    assert lines(cut) == lines(whole)
    assert [line["step"] for line in lines(cut) if "val" in line] == [3, 6]
    assert same_models(cut, whole)
    assert same_weights(cut, whole, "checkpoints/step-00000006/optimizer")


def test_a_signal_between_validation_and_step_does_not_repeat_the_entry(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(recipe(), whole, device="cpu")
    # The first of the four samples of step 4, after the validation.
    interrupted = signal_in(3 * 4 + 1, kind=TrainingSet, method="__getitem__")
    with interrupted, pytest.raises(Stopped, match="stopped after step 3"):
        train(recipe(), cut, device="cpu")
    assert "val" in lines(cut)[-1]
    train(recipe(), cut, resume=True, device="cpu")
    assert lines(cut) == lines(whole)


def test_a_validation_names_its_model_and_command(tmp_path: Path) -> None:
    train(recipe("training.steps=1"), tmp_path, device="cpu", command="seenet train shapes")
    result, saved = json.loads((tmp_path / "val.json").read_text()), load_model(tmp_path)
    assert result["model"] == {"file": "model.safetensors", "sha256": saved.sha256}
    assert result["command"] == saved.notes["command"] == "seenet train shapes"
    assert str(saved.notes["torch"]) == torch.__version__.partition("+")[0]
