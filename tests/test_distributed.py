"""Several processes equal one: the same samples, losses and counts; and a lost one is named."""

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.layers.norm_act import convert_sync_batchnorm

from seenet import distributed
from seenet.core.errors import LostError
from seenet.evaluation.run import run_evaluation
from seenet.model import create_model
from tests.training.launching import ROOT, run, torchrun
from tests.training.tiny import TINY, exit_codes, losses

SETTINGS = [
    *TINY, "model.variant=baseline", "training.steps=3", "training.accumulate=2",
    "training.validate_every=0", "training.ema=null",
]  # fmt: skip


def train(ranks: int, folder: Path, *settings: str) -> Path:
    """Train into `folder`/run and record the samples of each rank; return the run."""
    folder.mkdir()
    module = [*torchrun(ranks), "-m", "tests.training.patched", "record", str(folder)]
    words = ["train", "shapes", *SETTINGS, *settings, "--out", str(folder / "run")]
    code, said = run(*module, *words, "--device", "cpu")
    assert code == 0, said[-2000:]
    return folder / "run"


def draws(folder: Path) -> dict[int, list[list[int]]]:
    """Return the sorted (epoch, index) of each step, over all ranks."""
    steps: dict[int, list[list[int]]] = {}
    for path in folder.glob("draws-*.jsonl"):
        for line in path.read_text().splitlines():
            step, found = json.loads(line)
            steps[step] = sorted(steps.get(step, []) + found)
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_train_as_one(tmp_path: Path, world: int) -> None:
    """Without batch norm in training mode, only the sum over processes can differ."""
    settings = ["training.freeze_norms=true", "training.batch=8"]
    one = train(1, tmp_path / "one", *settings)
    several = train(world, tmp_path / "several", *settings)
    assert draws(tmp_path / "one") == draws(tmp_path / "several")
    assert [len(step) for step in draws(tmp_path / "several").values()] == [8, 8, 8]
    assert len(list((tmp_path / "several").glob("draws-*.jsonl"))) == world
    assert losses(one) == pytest.approx(losses(several), rel=1e-5)
    assert exit_codes(several) == dict.fromkeys(map(str, range(world)), 0)
    # The same file, scored by several processes and by one.
    scored = run_evaluation(several, device="cpu").result
    assert json.loads((several / "val.json").read_text())["confusion"] == scored["confusion"]


@pytest.mark.slow
def test_ranks_score_the_model_that_is_kept(tmp_path: Path) -> None:
    """Each rank's batch norm sees other images, but all validate what the file contains."""
    kept = train(2, tmp_path / "two", "training.ema=0.5")
    scored = run_evaluation(kept, device="cpu").result
    assert json.loads((kept / "val.json").read_text())["confusion"] == scored["confusion"]


def test_synchronized_norms_keep_their_activations() -> None:
    """CUDA runs convert them; a backbone whose norms contain activations is the hard case."""
    options = {"width": 8, "p_out": 16, "output_stride": 16}
    model = create_model(backbone="tf_efficientnet_lite0", num_classes=3, **options).eval()
    converted = convert_sync_batchnorm(copy.deepcopy(model))
    assert len(converted.backbone.norms()) == len(model.backbone.norms()) == 48
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(converted(images), model(images))


PROGRAM = """
import os, sys, time
from datetime import timedelta
from seenet import distributed
from seenet.core.errors import LostError
distributed.ANSWER_TIMEOUT = timedelta(seconds=4)
lost, how, rank = int(sys.argv[1]), sys.argv[2], int(os.environ["RANK"])
try:
    with distributed.init_process_group("cpu", timedelta(seconds=int(sys.argv[3]))) as group:
        assert distributed.all_gather([group.rank]) == [0, 1, 2]
        assert group.any(group.rank == 1) and group.from_first(7 - group.rank) == 7
        if rank == lost:
            how == "dies" and os._exit(9)
            how == "hangs" and time.sleep(600)
            raise RuntimeError("mine")
        started = time.monotonic()
        distributed.all_gather([]) if how == "dies" else group.any(False)
except LostError as error:
    print(error, int(time.monotonic() - started))
    sys.exit(error.exit_code)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "how"), [(1, "dies"), (0, "dies"), (1, "raises"), (2, "hangs"), (0, "hangs")]
)
def test_the_others_end_without_one_process(lost: int, how: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "3"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", **meeting}
    timeout = 20
    command = [sys.executable, "-c", PROGRAM, str(lost), how, str(timeout)]
    processes = {
        rank: subprocess.Popen(
            command, env={**environment, "RANK": str(rank)}, text=True, stdout=subprocess.PIPE
        )
        for rank in range(3)
    }
    try:
        said = {
            rank: process.communicate(timeout=200)[0]
            for rank, process in processes.items()
            if rank != lost
        }
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    assert [processes[rank].returncode for rank in said] == [75, 75]
    if how != "hangs":
        assert all(line.startswith("another process has ended") for line in said.values())
        return
    # Rank 0 calls the roll; without it each rank finds that rank 0 does not answer.
    asking = said.values() if lost == 0 else [said[0]]
    assert all(line.startswith(f"rank {lost} does not answer") for line in asking)
    # The operation and the roll call, which does not wait for the operation's timeout again.
    assert all(int(line.split()[-1]) < 2 * timeout - 5 for line in said.values())


def test_one_process_is_a_group_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.init_process_group("cpu") as group:
        assert (group.rank, group.world, group.first) == (0, 1, True)
        assert distributed.rank_and_world() == (0, 1)
        assert distributed.all_gather(["found"]) == ["found"]
        assert [group.any(False), group.any(True), group.from_first(7)] == [False, True, 7]
    with pytest.raises(RuntimeError, match="gloo"), distributed.naming_lost():
        raise RuntimeError("gloo says nothing here")


def test_only_errors_of_operations_mean_that_a_process_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="shape mismatch"), distributed.naming_lost():
        raise RuntimeError("shape mismatch")
    for words in (
        "[gloo/transport/tcp/pair.cc:561] Connection closed by peer",
        "Application timeout caused pair closure",  # of a frozen process, without gloo's name
    ):
        with pytest.raises(LostError, match=words[-14:]) as caught, distributed.naming_lost():
            raise RuntimeError(words)
        assert caught.value.exit_code == 75
