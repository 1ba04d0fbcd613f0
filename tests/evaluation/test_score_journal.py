"""An interrupted evaluation continues, and ends with the result of an uninterrupted one."""

import json
import logging
from io import FileIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenet.core.errors import BusyError, DataError
from seenet.evaluation.confusion import ImageScore
from seenet.evaluation.evaluator import Evaluation, evaluate
from seenet.evaluation.metrics import open_metrics
from seenet.evaluation.score_journal import (
    ScoreJournal,
    open_journal,
    pack,
    read_records,
    stamp_of,
    unpack,
)
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


def random_score(seed: int) -> ImageScore:
    rng = np.random.default_rng(seed)
    cells = np.sort(rng.choice(900, rng.integers(0, 9), replace=False))
    counts = rng.integers(1, 2**40, len(cells))
    sizes = rng.integers(0, 9, seed % 4)
    metric_counts = tuple(rng.integers(-(2**40), 2**40, size) for size in sizes)
    return ImageScore(seed, cells, counts, bool(seed % 2), float(rng.normal()), metric_counts)


def content_of(score: ImageScore) -> tuple:
    arrays = [array.tolist() for array in (score.cells, score.counts, *score.metric_counts)]
    return score.index, score.has_boundary, score.loss, arrays


def write_journal(folder: Path, count: int) -> tuple[bytes, int]:
    """Write a journal; return its bytes and the start of its records."""
    with open_journal(folder, {"a": 1}) as journal:
        for seed in range(count):
            journal.add(stamp_of(str(seed)), random_score(seed))
    content = (folder / "rank-0").read_bytes()
    return content, content.index(b"\n") + 1


@pytest.mark.parametrize("seed", range(20))
def test_packing_is_lossless(seed):
    assert content_of(unpack(pack(random_score(seed)))) == content_of(random_score(seed))


@pytest.mark.parametrize("limit", [0, 1, 4])
def test_an_interrupted_evaluation_continues(tmp_path, caplog, limit):
    caplog.set_level(logging.INFO, "seenet")
    split, whole = random_split(5), run(CountingPredictor(), random_split(5), None)
    run_interrupted(split, tmp_path / "partial", limit)
    assert f"{limit} of 5 images are counted" in caplog.text
    second = CountingPredictor()
    assert result_text(run(second, split, tmp_path / "partial")) == result_text(whole)
    assert second.seen == 5 - limit


def test_a_file_cut_at_any_place_continues(tmp_path):
    """A kill may leave any prefix of the file."""
    split, whole = random_split(3), result_text(run(CountingPredictor(), random_split(3), None))
    run(CountingPredictor(), split, tmp_path / "whole")
    content = (tmp_path / "whole" / "rank-0").read_bytes()
    for length in np.linspace(0, len(content), 20).astype(int):
        path = tmp_path / str(length) / "rank-0"
        path.parent.mkdir()
        path.write_bytes(content[:length])
        assert result_text(run(CountingPredictor(), split, path.parent)) == whole
        assert path.read_bytes() == content


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_prefix_with_a_flipped_byte_keeps_the_good_records(tmp_path_factory, data):
    folder, count = tmp_path_factory.mktemp("record"), data.draw(st.integers(0, 4))
    content, start = write_journal(folder, count)
    assert len(read_records(content, start)[1]) == count
    damaged = bytearray(content[: data.draw(st.integers(start, len(content)))])
    if len(damaged) > start and data.draw(st.booleans()):
        damaged[data.draw(st.integers(start, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    # A file system may have reserved space that was never written.
    damaged += bytes(data.draw(st.integers(0, 40)))
    scores = read_records(bytes(damaged), start)[1]
    assert list(scores) == [stamp_of(str(seed)) for seed in range(len(scores))]
    for seed, score in enumerate(scores.values()):
        assert content_of(score) == content_of(random_score(seed))
    (folder / "rank-0").write_bytes(damaged)
    with open_journal(folder, {"a": 1}) as journal:
        journal.add(stamp_of("new"), random_score(9))
    after = read_records((folder / "rank-0").read_bytes(), start)[1]
    assert list(after) == [*scores, stamp_of("new")]


@pytest.mark.parametrize(
    ("model", "options", "log"),
    [
        ({"sha256": "cd"}, {}, "model was ab and is now cd"),
        ({"scales": (0.5,)}, {}, "scales was [1.0] and is now [0.5]"),
        ({"flip": True}, {}, "flip was False and is now True"),
        ({"precision": "bf16"}, {}, "precision was fp32 and is now bf16"),
        ({}, {"widths": (2, 4)}, "widths was"),
        ({}, {"boundary": None}, "boundary was trimap and is now None"),
        ({}, {"metrics": {}}, "measures was"),
        ({}, {"loss": False}, "loss was True and is now False"),
    ],
)
def test_another_evaluation_starts_anew(tmp_path, caplog, model, options, log):
    caplog.set_level(logging.INFO, "seenet")
    split = random_split(4)
    run_interrupted(split, tmp_path, 3)
    second = CountingPredictor(**model)
    found = run(second, split, tmp_path, **options)
    assert second.seen == 4
    assert log in caplog.text
    assert found.result() == run(CountingPredictor(**model), split, None, **options).result()


def test_a_changed_image_is_counted_again(tmp_path):
    split = random_split(4)
    run_interrupted(split, tmp_path, 3)
    split.pairs[1] = random_split(1, seed=9).pairs[0]
    second = CountingPredictor()
    found = run(second, split, tmp_path)
    assert found.result() == run(CountingPredictor(), split, None).result()
    assert second.seen == 2


def test_files_of_all_ranks_are_read_and_the_own_is_written(tmp_path):
    for rank in range(3):
        with open_journal(tmp_path, {"a": 1}, rank) as journal:
            assert len(journal.scores) == rank
            journal.add(stamp_of(str(rank)), random_score(rank))
    counts = [len(read_records(path.read_bytes(), 9)[1]) for path in sorted(tmp_path.iterdir())]
    assert counts == [1, 1, 1]


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
    with FileIO("/dev/full", "a") as full:
        journal = ScoreJournal({}, tmp_path / "rank-0", full)
        with pytest.raises(DataError, match=r"^[^\n]*No space left on device[^\n]*$"):
            journal.add(stamp_of("a"), random_score(1))
