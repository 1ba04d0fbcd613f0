"""Two processes are one: the same pictures in every step, the same losses, the same confusion matrix."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.layers.norm_act import convert_sync_batchnorm

from seenet.core.errors import DataError
from seenet.core.recipe_files import load_recipe
from seenet.evaluation.run import run_evaluation
from seenet.model import create_model
from seenet.training.distributed import Ranks
from seenet.training.trainer import Trainer

SETTINGS = [
    "model.variant=baseline", "model.backbone=resnet10t", "model.weights=null", "data.size=48", "data.count=30", "transforms.crop=48",
    "training.steps=3", "training.batch=4", "training.accumulate=2", "training.workers=0",
]  # fmt: skip
ALONE = [sys.executable]
TWO = [sys.executable, *["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]]


def train(launcher: list[str], folder: Path, *overrides: str) -> None:
    folder.mkdir()
    command = [*launcher, "-m", "tests.training.recording", str(folder), "train", "shapes", *SETTINGS, *overrides]
    done = subprocess.run(
        [*command, "--out", str(folder / "run"), "--device", "cpu"],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def draws(folder: Path) -> dict[int, list[list[int]]]:
    """Sorted (epoch, index) of each step, over all ranks."""
    steps: dict[int, list[list[int]]] = {}
    for path in folder.glob("draws-*.jsonl"):
        for line in path.read_text().splitlines():
            step, found = json.loads(line)
            steps[step] = sorted(steps.get(step, []) + found)
    return steps


@pytest.mark.slow
def test_two_gloo_processes_are_one(tmp_path: Path) -> None:
    """Without batch norm in training mode nothing but the sum over processes is left to differ."""
    train(ALONE, tmp_path / "one", "training.freeze_norms=true")
    train(TWO, tmp_path / "two", "training.freeze_norms=true")
    one, two = (tmp_path / name / "run" for name in ("one", "two"))
    assert draws(tmp_path / "one") == draws(tmp_path / "two")
    assert [len(found) for found in draws(tmp_path / "two").values()] == [4, 4, 4]
    losses = [[json.loads(line).get("loss") for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)]
    assert losses[0][:3] == pytest.approx(losses[1][:3], rel=1e-5)
    assert json.loads((two / "exit.json").read_text()).keys() == {"0", "1"}
    # The very same file, scored by two processes and by one.
    scored = run_evaluation(two, device="cpu").result
    assert json.loads((two / "val.json").read_text())["confusion"] == scored["confusion"]


@pytest.mark.slow
def test_ranks_score_the_model_that_is_kept(tmp_path: Path) -> None:
    """Each rank's batch norm sees other pictures; what is validated is what the file holds, all the same."""
    train(TWO, tmp_path / "two", "training.ema=0.5")
    run = tmp_path / "two" / "run"
    assert json.loads((run / "val.json").read_text())["confusion"] == run_evaluation(run, device="cpu").result["confusion"]


def test_synchronised_norms_keep_their_activations() -> None:
    """What CUDA runs of several processes are converted to; a backbone whose norms hold activations is the hard case."""
    model = create_model(backbone="tf_efficientnet_lite0", num_classes=3, width=8, p_out=16, output_stride=16).eval()
    converted = convert_sync_batchnorm(copy.deepcopy(model))
    assert len(converted.backbone.norms()) == len(model.backbone.norms()) == 48
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(converted(images), model(images))


def test_ranks_that_look_at_other_checkpoints_stop(tmp_path: Path) -> None:
    """As where each machine has a folder of its own under the same name."""

    class Second(Ranks):
        def from_first(self, value: int) -> int:
            return 0

        def any(self, flag: bool) -> bool:
            return flag

    settings = load_recipe("shapes", [*SETTINGS, "training.accumulate=1"])
    Trainer(settings, tmp_path, torch.device("cpu"), Second())
    trainer = Trainer(settings, tmp_path, torch.device("cpu"), Ranks())
    trainer.step = 2
    trainer.save()
    with pytest.raises(DataError, match=r"rank 0 finds the checkpoint of step 2, rank 0 that of step 0; expected one folder"):
        Trainer(settings, tmp_path, torch.device("cpu"), Second())
