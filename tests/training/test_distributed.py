"""Two processes are one: the same pictures in every step, the same losses, the same confusion matrix."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Without batch norm in training mode nothing but the sum over processes is left to differ.
SETTINGS = [
    "model.variant=baseline", "model.backbone=resnet10t", "data.size=48", "data.count=30", "transforms.crop=48",
    "training.steps=3", "training.batch=4", "training.accumulate=2", "training.workers=0", "training.freeze_norms=true",
]  # fmt: skip


@pytest.mark.slow
def test_two_gloo_processes(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, launcher in {
        "one": ["-m", "seenet"],
        "two": ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2", "-m", "seenet"],
    }.items():
        command = [sys.executable, *launcher, "train", "shapes", *SETTINGS, "--out", str(tmp_path / name), "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
    runs = [tmp_path / "one", tmp_path / "two"]
    losses = [[json.loads(line).get("loss") for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs]
    assert losses[0][:3] == pytest.approx(losses[1][:3], rel=1e-5)
    results = [json.loads((run / "val.json").read_text()) for run in runs]
    assert [image["key"] for image in results[0]["per_image"]] == [image["key"] for image in results[1]["per_image"]]
    assert results[0]["miou"] == pytest.approx(results[1]["miou"], abs=2e-3)
    assert json.loads((runs[1] / "exit.json").read_text()).keys() == {"0", "1"}
