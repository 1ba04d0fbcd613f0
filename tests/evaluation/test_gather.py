import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seenet.evaluation.boundary_iou import BoundaryIou
from seenet.evaluation.conventions import Conventions
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.gather import pack, unpack
from seenet.evaluation.scores import ImageScore
from seenet.prediction.predictor import Predictor
from tests.evaluation.doubles import LABELS, random_split
from tests.prediction.doubles import TinyNet

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, sys
from datetime import timedelta
import torch
from torch import distributed
from seenet.core.errors import DataError
from seenet.evaluation.boundary_iou import BoundaryIou
from seenet.evaluation.conventions import Conventions
from seenet.evaluation.evaluator import evaluate
from seenet.prediction.predictor import Predictor
from tests.evaluation.doubles import LABELS, random_split
from tests.prediction.doubles import TinyNet

rank, world, store, out, bad = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
torch.set_num_threads(1)
distributed.init_process_group(
    "gloo", init_method="file://" + store, rank=rank, world_size=world, timeout=timedelta(seconds=60)
)
split = random_split(5)
if bad >= 0:
    split.pairs[bad][1][0, 0] = 99
try:
    measures = [BoundaryIou(LABELS), Conventions(LABELS)]
    found = evaluate(Predictor(TinyNet(), LABELS, device="cpu"), split, boundary="trimap", loss=True, measures=measures)
    open(out + str(rank), "w").write(json.dumps(found.result()))
except DataError as error:
    print(error)
    sys.exit(4)
finally:
    distributed.destroy_process_group()
"""


def start(tmp_path: Path, world: int, bad: int = -1) -> list[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, (rank, world, tmp_path / "store", tmp_path / "out", bad))],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(world)
    ]  # fmt: skip


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_give_what_one_gives(tmp_path, world):
    for process in start(tmp_path, world):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measures = [BoundaryIou(LABELS), Conventions(LABELS)]
        alone = evaluate(Predictor(TinyNet(), LABELS, device="cpu"), random_split(5), boundary="trimap", loss=True, measures=measures)
    finally:
        torch.set_num_threads(threads)
    for rank in range(world):
        assert json.loads((tmp_path / f"out{rank}").read_text()) == json.loads(json.dumps(alone.result()))


def test_one_ranks_bad_label_ends_both(tmp_path):
    processes = start(tmp_path, 2, bad=1)
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [4, 4], said
    assert "rank 1" in said[0][0]
    assert "label ids 99" in said[1][0]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**6), st.integers(0, 30), st.booleans(), st.floats(allow_nan=False), st.lists(st.integers(0, 9), max_size=3)
        ),
        max_size=6,
    )
)
def test_packing_loses_nothing(items):
    rng = np.random.default_rng(0)
    scores = [
        ImageScore(
            index,
            np.sort(rng.choice(1000, size, replace=False)),
            rng.integers(1, 2**40, size),
            outlined,
            loss,
            tuple(rng.integers(-(2**40), 2**40, length) for length in measured),
        )
        for index, size, outlined, loss, measured in items
    ]
    back = unpack(pack(scores))
    assert [(s.index, s.outlined, s.loss) for s in back] == [(s.index, s.outlined, s.loss) for s in scores]
    for one, other in zip(scores, back, strict=True):
        assert np.array_equal(one.cells, other.cells)
        assert np.array_equal(one.counts, other.counts)
        assert len(one.measured) == len(other.measured)
        assert all(map(np.array_equal, one.measured, other.measured))
