"""An interrupted evaluation continues, and ends with the result of an uninterrupted one."""

import json
import logging
from io import FileIO
from pathlib import Path

import numpy as np
import pytest

from seenet.core.errors import BusyError, DataError
from seenet.evaluation.confusion import ImageScore
from seenet.evaluation.evaluator import Evaluation, evaluate
from seenet.evaluation.metrics import open_metrics
from seenet.evaluation.score_journal import ScoreJournal, open_journal
from seenet.prediction.predictor import Predictor
from tests.evaluation.doubles import LABELS, MemorySplit, random_split
from tests.prediction.doubles import TinyNet


class CountingPredictor(Predictor):
    """A predictor that counts its images, and raises KeyboardInterrupt after `limit` of them."""

    def __init__(self, limit: int = 1000, sha256: str = "ab", **options) -> None:
        info = {"file": "tiny.safetensors", "sha256": sha256}
        super().__init__(TinyNet(), LABELS, device="cpu", info=info, **options)
        self.limit, self.seen = limit, 0

    def row_chunks(self, image, size=None):
        if self.seen == self.limit:
            raise KeyboardInterrupt
        self.seen += 1
        return super().row_chunks(image, size)


def run(predictor: Predictor, split: MemorySplit, journal: Path | None, **options) -> Evaluation:
    metrics = open_metrics(["boundary_iou", "conventions"], split)
    options = {"boundary": "trimap", "loss": True, "metrics": metrics, **options}
    return evaluate(predictor, split, journal=journal, **options)


def run_interrupted(split: MemorySplit, journal: Path, limit: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(CountingPredictor(limit), split, journal)


def result_text(evaluation: Evaluation) -> str:
    return json.dumps(evaluation.result())


@pytest.mark.parametrize("limit", [0, 1, 4])
def test_an_interrupted_evaluation_continues(tmp_path, caplog, limit):
    caplog.set_level(logging.INFO, "seenet")
    split, whole = random_split(5), run(CountingPredictor(), random_split(5), None)
    run_interrupted(split, tmp_path / "partial", limit)
    second = CountingPredictor()
    assert result_text(run(second, split, tmp_path / "partial")) == result_text(whole)
    assert second.seen == 5 - limit
    assert (f"{limit} of 5 images were counted before" in caplog.text) == (limit > 0)


def test_a_damaged_file_continues(tmp_path):
    """A kill leaves a prefix, a file system also zeros; a disk may flip a bit anywhere."""
    split, path, rng = random_split(3), tmp_path / "rank-0", np.random.default_rng(0)
    whole = result_text(run(CountingPredictor(), split, tmp_path))
    content = path.read_bytes()
    for length in np.linspace(0, len(content), 20).astype(int):
        flipped = np.frombuffer(content, np.uint8).copy()
        flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
        for damaged in (content[:length], content[:length] + bytes(40), flipped.tobytes()):
            path.write_bytes(damaged)
            assert result_text(run(CountingPredictor(), split, tmp_path)) == whole
            assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ({"sha256": "cd"}, {}),
        ({"scales": (0.5,)}, {}),
        ({"flip": True}, {}),
        ({"precision": "bf16"}, {}),
        ({}, {"widths": (2, 4)}),
        ({}, {"boundary": None}),
        ({}, {"metrics": {}}),
        ({}, {"loss": False}),
    ],
)
def test_another_evaluation_starts_anew(tmp_path, caplog, model, options):
    caplog.set_level(logging.INFO, "seenet")
    split, second = random_split(4), CountingPredictor(**model)
    run_interrupted(split, tmp_path, 3)
    found = run(second, split, tmp_path, **options)
    assert second.seen == 4
    assert "rank-0: counts with another model, data, settings or machine" in caplog.text
    assert found.result() == run(CountingPredictor(**model), split, None, **options).result()


def test_a_changed_image_is_counted_again(tmp_path):
    split, second = random_split(4), CountingPredictor()
    run_interrupted(split, tmp_path, 3)
    split.pairs[1] = random_split(1, seed=9).pairs[0]
    found = run(second, split, tmp_path)
    assert found.result() == run(CountingPredictor(), split, None).result()
    assert second.seen == 2


def test_a_second_process_is_refused(tmp_path):
    with (
        open_journal(tmp_path, {"a": 1}),
        pytest.raises(BusyError),
        open_journal(tmp_path, {"a": 2}),
    ):
        pass
    assert (tmp_path / "rank-0").read_bytes() == b'{"a": 1}\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(tmp_path):
    score = ImageScore(0, np.zeros(0, int), np.zeros(0, int))
    with FileIO("/dev/full", "a") as full:
        journal = ScoreJournal({}, tmp_path / "rank-0", full)
        with pytest.raises(DataError, match=r"^[^\n]*No space left on device[^\n]*$"):
            journal.add(bytes(32), score)
