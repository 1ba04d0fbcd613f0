"""Several processes are one: the same pictures in every step, the same losses, the same confusion matrix."""

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers.norm_act import convert_sync_batchnorm

from seenet import distributed
from seenet.core.errors import DataError, LostError
from seenet.core.recipe_files import load_recipe
from seenet.data.shapes import ShapesSplit
from seenet.distributed import Ranks
from seenet.evaluation.run import run_evaluation
from seenet.model import create_model
from seenet.training.trainer import Trainer
from seenet.training.trainer import train as train_here
from tests.training.launching import finish, start, torchrun
from tests.training.test_trainer import losses

SETTINGS = [
    "model.variant=baseline", "model.backbone=resnet10t", "model.weights=null", "data.size=48", "data.count=30", "transforms.crop=48",
    "training.steps=3", "training.batch=4", "training.accumulate=2", "training.workers=0",
]  # fmt: skip
ALONE = [sys.executable]
ROOT = Path(__file__).parents[1]


def run(command: list[str]) -> None:
    process = start(command)
    said = finish(process, 400)
    assert process.returncode == 0, said[-2000:]


def train(launcher: list[str], folder: Path, *overrides: str) -> Path:
    """A run in `folder`/run, and beside it which samples each rank had."""
    folder.mkdir()
    command = [*launcher, "-m", "tests.training.recording", str(folder), "train", "shapes", *SETTINGS, *overrides]
    run([*command, "--out", str(folder / "run"), "--device", "cpu"])
    return folder / "run"


def draws(folder: Path) -> dict[int, list[list[int]]]:
    """Sorted (epoch, index) of each step, over all ranks."""
    steps: dict[int, list[list[int]]] = {}
    for path in folder.glob("draws-*.jsonl"):
        for line in path.read_text().splitlines():
            step, found = json.loads(line)
            steps[step] = sorted(steps.get(step, []) + found)
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_gloo_processes_are_one(tmp_path: Path, world: int) -> None:
    """Without batch norm in training mode nothing but the sum over processes is left to differ."""
    settings = ["training.freeze_norms=true", "training.batch=8"]
    one = train(ALONE, tmp_path / "one", *settings)
    several = train(torchrun(world), tmp_path / "several", *settings)
    assert draws(tmp_path / "one") == draws(tmp_path / "several")
    assert [len(found) for found in draws(tmp_path / "several").values()] == [8, 8, 8]
    assert len(list((tmp_path / "several").glob("draws-*.jsonl"))) == world
    assert losses(one)[:3] == pytest.approx(losses(several)[:3], rel=1e-5)
    assert json.loads((several / "exit.json").read_text()).keys() == {str(rank) for rank in range(world)}
    # The very same file, scored by several processes and by one.
    scored = run_evaluation(several, device="cpu").result
    assert json.loads((several / "val.json").read_text())["confusion"] == scored["confusion"]


@pytest.mark.slow
def test_ranks_score_the_model_that_is_kept(tmp_path: Path) -> None:
    """Each rank's batch norm sees other pictures; what is validated is what the file holds, all the same."""
    kept = train(torchrun(2), tmp_path / "two", "training.ema=0.5")
    assert json.loads((kept / "val.json").read_text())["confusion"] == run_evaluation(kept, device="cpu").result["confusion"]


@pytest.mark.slow
def test_eval_of_several_processes_is_that_of_one(tmp_path: Path) -> None:
    train_here(load_recipe("shapes", [*SETTINGS, "training.steps=1"]), tmp_path / "run", device="cpu")
    results = []
    for world in (1, 2, 4):
        out = tmp_path / str(world)
        run([*torchrun(world), "-m", "seenet", "eval", str(tmp_path / "run"), "--conventions", "--device", "cpu", "--out", str(out)])
        result = json.loads((out / "result.json").read_text())
        # What quotes the command, and with it the folder.
        results.append({key: value for key, value in result.items() if key != "command"})
        assert not (out / "partial").exists()
    assert np.sum(results[0]["confusion"]) > 0
    assert results[0] == results[1] == results[2]


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


def drawn_as_files(folder: Path) -> Path:
    """Scenes in a folder of one's own, and its description."""
    split = ShapesSplit("train", 12, 48)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(len(split)):
        image, mask = split.read(index)
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{index}.png")
    (folder / "seenet.yaml").write_text(f"decode: index\nclasses: {list(split.labels.classes)}\nval: 0.25\n")
    return folder


@pytest.mark.slow
def test_ranks_share_the_scan_and_its_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = drawn_as_files(tmp_path / "data")
    settings = [
        *SETTINGS[:3], "data.kind=folder", f"data.root={data}", "transforms.crop=48", "training.steps=1", "training.batch=4",
        "training.workers=0", "loss.class_weights=median_frequency",
    ]  # fmt: skip

    def scanned(what: str, *command: str) -> tuple[subprocess.Popen[str], str]:
        (tmp_path / what).mkdir()
        process = start([*torchrun(2), "-m", "tests.training.scanning", str(tmp_path / what), *command, "--device", "cpu"])
        return process, finish(process, 400)

    def looked_at(what: str) -> list[list[str]]:
        return [path.read_text().splitlines() for path in sorted((tmp_path / what).glob("scanned-*.txt"))]

    def trained(what: str) -> tuple[subprocess.Popen[str], str]:
        return scanned(what, "train", "shapes", *settings, "--out", str(tmp_path / what / "run"))

    process, said = trained("good")
    assert process.returncode == 0, said[-2000:]
    first, second = looked_at("good")
    assert len({*first, *second}) == len(first) + len(second) == 12
    assert abs(len(first) - len(second)) <= 2
    # `eval` has nothing left to look at, nor has a second run.
    process, said = scanned("eval", "eval", str(tmp_path / "good" / "run"))
    assert process.returncode == 0, said[-2000:]
    assert looked_at("eval") == []
    # One that is wrong is another rank's to read, and ends both in the same way.
    Image.new("L", (48, 48), 77).save(data / "masks" / "7.png")
    process, said = trained("bad")
    ends = json.loads((tmp_path / "bad" / "run" / "exit.json").read_text())
    assert {entry["code"] for entry in ends.values()} == {4} and len(ends) == 2
    assert len({entry["reason"] for entry in ends.values()}) == 1 and "7.png: ids 77" in ends["0"]["reason"]
    assert looked_at("bad") in ([[f"{name} 7"]] for name in ("data/train", "data/val"))


PROGRAM = """
import os, sys, time
from datetime import timedelta
from seenet import distributed
from seenet.core.errors import LostError
distributed.ANSWER_TIMEOUT = timedelta(seconds=2)
lost, how, rank = int(sys.argv[1]), sys.argv[2], int(os.environ["RANK"])
try:
    with distributed.init_process_group("cpu", timedelta(seconds=8)) as group:
        assert distributed.all_gather([group.rank]) == [0, 1, 2]
        assert group.any(group.rank == 1) and group.from_first(7 - group.rank) == 7
        if rank == lost:
            how == "dies" and os._exit(9)
            how == "hangs" and time.sleep(600)
            raise RuntimeError("mine")
        distributed.all_gather([]) if how == "dies" else group.any(False)
except LostError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "how"), [(1, "dies"), (0, "dies"), (1, "raises"), (2, "hangs"), (0, "hangs")])
def test_without_one_process_the_others_end(lost: int, how: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", PROGRAM, str(lost), how]
    processes = [
        subprocess.Popen(command, env={**meet, "WORLD_SIZE": "3", "RANK": str(rank)}, text=True, stdout=subprocess.PIPE)
        for rank in range(3)
    ]
    try:
        said = {rank: process.communicate(timeout=200)[0] for rank, process in enumerate(processes) if rank != lost}
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [processes[rank].returncode for rank in said] == [75, 75]
    if how == "hangs":
        # The others learn it from the first one, if it is not itself the one.
        asking = said if lost == 0 else {0: said[0]}
        assert [word.startswith(f"rank {lost} does not answer") for word in asking.values()] == [True] * len(asking)
    else:
        assert [word.startswith("another process has ended") for word in said.values()] == [True, True]


def test_one_process_is_a_group_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.init_process_group("cpu") as group:
        assert (group.rank, group.world, group.first) == (0, 1, True)
        assert distributed.rank_and_world() == (0, 1)
        assert distributed.all_gather(["found"]) == ["found"]
        assert [group.any(False), group.any(True), group.from_first(7)] == [False, True, 7]
    with pytest.raises(RuntimeError, match="gloo"), distributed.naming_lost():
        raise RuntimeError("gloo says nothing here")


def test_only_operations_errors_mean_that_one_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="shape mismatch"), distributed.naming_lost():
        raise RuntimeError("shape mismatch")
    with pytest.raises(LostError, match="closed by peer") as caught, distributed.naming_lost():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer")
    assert caught.value.exit_code == 75
