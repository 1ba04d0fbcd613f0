"""`--dry-run`: what a run would take, without writing anything."""

import json
from pathlib import Path

import pytest

from seenet.cli import main

TINY = [
    "model.backbone=resnet10t", "model.weights=null", "model.width=8", "model.p_out=16", "data.size=48", "data.count=20",
    "transforms.crop=48", "training.batch=2", "training.workers=0",
]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 3000])
def test_forecast_counts_the_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], steps: int
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(
            ["train", "shapes", *TINY, f"training.steps={steps}", "training.validate_every=1000", "--dry-run", "--json", "--device", "cpu"]
        )
    assert not caught.value.code
    found = json.loads(capsys.readouterr().out)
    assert (found["train_images"], found["val_images"], found["precision"]) == (20, 50, "fp32")
    assert found["step_seconds"] > 0
    assert found["memory_mib"] >= 0
    validations = 3 if steps == 3000 else 1
    expected = (steps * found["step_seconds"] + validations * 50 * found["image_seconds"]) / 3600
    assert found["hours"] == pytest.approx(expected)
    assert not list(tmp_path.iterdir())


def test_forecast_meets_bad_data_at_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["train", "camvid-lite0", "--dry-run"])
    assert caught.value.code == 4
    assert "SegNet" in capsys.readouterr().err
