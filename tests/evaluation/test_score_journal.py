"""An evaluation that was cut short goes on where it stopped, and ends as if it never had been."""

import json
import logging
import os
import signal
import subprocess
import sys
from io import FileIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenet.core.errors import BusyError, DataError
from seenet.data.shapes import SHAPES
from seenet.evaluation.confusion import ImageScore
from seenet.evaluation.evaluator import Evaluation, evaluate
from seenet.evaluation.metrics import open_metrics
from seenet.evaluation.score_journal import ScoreJournal, open_journal, pack, read_records, stamp_of, unpack
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction.predictor import Predictor
from tests.evaluation.doubles import LABELS, MemorySplit, random_split
from tests.prediction.doubles import TinyNet

ROOT = Path(__file__).parents[2]
TWO = [sys.executable, *["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]]


class Counted(Predictor):
    """Knows how many pictures it looked at, and stops as if by Ctrl-C before one more than `most`."""

    def __init__(self, most: int = 1000, sha256: str = "ab", **keywords) -> None:
        super().__init__(TinyNet(), LABELS, device="cpu", info={"file": "tiny.safetensors", "sha256": sha256}, **keywords)
        self.most, self.seen = most, 0

    def stripes(self, image, size=None):
        if self.seen == self.most:
            raise KeyboardInterrupt
        self.seen += 1
        return super().stripes(image, size)


def run(predictor: Predictor, split: MemorySplit, journal: Path | None, **keywords) -> Evaluation:
    metrics = open_metrics(["boundary_iou", "conventions"], split)
    return evaluate(predictor, split, boundary="trimap", loss=True, metrics=metrics, journal=journal, **keywords)


def cut(split: MemorySplit, journal: Path, most: int, **keywords) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Counted(most, **keywords), split, journal)


def score_of(seed: int) -> ImageScore:
    rng = np.random.default_rng(seed)
    cells = np.sort(rng.choice(900, rng.integers(0, 9), replace=False))
    return ImageScore(seed, cells, rng.integers(1, 2**40, len(cells)), bool(seed % 2), float(rng.normal()), (rng.integers(0, 9, 3),))


def same(one: ImageScore, other: ImageScore) -> bool:
    arrays = [[score.cells, score.counts, *score.measured] for score in (one, other)]
    plain = [(score.index, score.outlined, score.loss) for score in (one, other)]
    return plain[0] == plain[1] and all(map(np.array_equal, *arrays))


def written(folder: Path, key: dict[str, object], count: int) -> bytes:
    with open_journal(folder, key) as kept:
        for seed in range(count):
            kept.add(stamp_of(str(seed)), score_of(seed))
    return (folder / "rank-0").read_bytes()


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


@pytest.mark.parametrize("most", [0, 1, 4])
def test_goes_on_where_it_stopped(tmp_path, caplog, most):
    caplog.set_level(logging.INFO, "seenet")
    split, whole = random_split(5), run(Counted(), random_split(5), None).result()
    cut(split, tmp_path / "partial", most)
    assert f"{most} of 5 pictures are counted" in caplog.text
    second = Counted()
    assert json.dumps(run(second, split, tmp_path / "partial").result()) == json.dumps(whole)
    assert second.seen == 5 - most
    assert ("were counted before" in caplog.text) == (most > 0)


def test_wherever_the_file_ends(tmp_path):
    """A kill leaves any beginning of what is written; cut at every byte around a record's ends, and at some within."""
    split, whole = random_split(3), json.dumps(run(Counted(), random_split(3), None).result())
    run(Counted(), split, tmp_path / "whole")
    content = (tmp_path / "whole" / "rank-0").read_bytes()
    start = content.index(b"\n") + 1
    ends = [start]
    while ends[-1] < len(content):
        ends.append(ends[-1] + 8 + int.from_bytes(content[ends[-1] : ends[-1] + 4], "little"))
    assert len(ends) == 4
    for length in sorted({0, 1, start - 1, *(end + step for end in ends for step in (-1, 0, 1, 8, 40) if end + step <= len(content))}):
        path = tmp_path / str(length) / "rank-0"
        path.parent.mkdir()
        path.write_bytes(content[:length])
        again = Counted()
        assert json.dumps(run(again, split, path.parent).result()) == whole
        assert again.seen == 3 - sum(end <= length for end in ends[1:])
        assert path.read_bytes() == content


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_beginning_and_any_flipped_byte(tmp_path_factory, data):
    folder, count = tmp_path_factory.mktemp("record"), data.draw(st.integers(0, 4))
    content = written(folder, {"a": 1}, count)
    start = content.index(b"\n") + 1
    good, scores = read_records(content, start)
    assert good == len(content)
    assert len(scores) == count
    damaged = bytearray(content[: data.draw(st.integers(start, len(content)))])
    if len(damaged) > start and data.draw(st.booleans()):
        damaged[data.draw(st.integers(start, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    damaged += bytes(data.draw(st.integers(0, 40)))  # a file system may have made room that was never filled
    good, found = read_records(bytes(damaged), start)
    assert good <= len(damaged)
    assert list(found) == [stamp_of(str(seed)) for seed in range(len(found))]
    assert all(same(score, score_of(seed)) for seed, score in enumerate(found.values()))
    (folder / "rank-0").write_bytes(damaged)
    with open_journal(folder, {"a": 1}) as kept:
        kept.add(stamp_of("new"), score_of(9))
    found[stamp_of("new")] = score_of(9)
    assert list(read_records((folder / "rank-0").read_bytes(), start)[1]) == list(found)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"sha256": "cd"}, "model was ab and is now cd"),
        ({"scales": (0.5,)}, r"scales was [1.0] and is now [0.5]"),
        ({"flip": True}, "flip was False and is now True"),
        ({"precision": "bf16"}, "precision was fp32 and is now bf16"),
    ],
)
def test_another_evaluation_starts_anew(tmp_path, caplog, other, said):
    caplog.set_level(logging.INFO, "seenet")
    split = random_split(4)
    cut(split, tmp_path, 3)
    second = Counted(**other)
    found = run(second, split, tmp_path)
    assert second.seen == 4
    assert f"counts of another evaluation ({said}); starting anew" in caplog.text
    assert found.result() == run(Counted(**other), split, None).result()


def test_other_widths_and_metrics_start_anew(tmp_path):
    split = random_split(4)
    edges = open_metrics(["boundary_iou"], split)
    cut(split, tmp_path, 3)
    for keywords in ({"widths": (2, 4)}, {"boundary": None}, {"metrics": {}}, {"loss": False}):
        one = Counted()
        evaluate(one, split, journal=tmp_path, **{"boundary": "trimap", "loss": True, "metrics": edges, **keywords})
        assert one.seen == 4


def test_a_picture_that_changed_is_counted_again(tmp_path):
    split = random_split(4)
    cut(split, tmp_path, 3)
    split.pairs[1] = random_split(1, seed=9).pairs[0]
    second = Counted()
    assert run(second, split, tmp_path).result() == run(Counted(), split, None).result()
    assert second.seen == 2


def test_files_of_all_ranks_are_read_and_their_own_is_written(tmp_path):
    for rank in range(3):
        with open_journal(tmp_path, {"a": 1}, rank) as kept:
            kept.add(stamp_of(str(rank)), score_of(rank))
    with open_journal(tmp_path, {"a": 1}) as kept:
        assert all(same(kept.found[stamp_of(str(rank))], score_of(rank)) for rank in range(3))
        kept.add(stamp_of("3"), score_of(3))
    assert [len(read_records(path.read_bytes(), 9)[1]) for path in sorted(tmp_path.iterdir())] == [2, 1, 1]
    with open_journal(tmp_path, {"a": 2}, 1) as kept:
        assert not kept.found
    with open_journal(tmp_path, {"a": 1}) as kept:
        assert len(kept.found) == 3


def test_one_process_at_a_time(tmp_path):
    with open_journal(tmp_path, {"a": 1}), pytest.raises(BusyError, match="another process"), open_journal(tmp_path, {"a": 2}):
        pass
    assert (tmp_path / "rank-0").read_bytes() == b'{"a": 1}\n'


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"rank-0: cannot be written \(Not a directory\)"), open_journal(tmp_path / "file" / "partial", {}):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(tmp_path):
    with FileIO("/dev/full", "a") as full:
        kept = ScoreJournal({}, tmp_path / "rank-0", full)
        with pytest.raises(DataError, match="No space left on device") as caught:
            kept.add(stamp_of("a"), score_of(1))
    assert "\n" not in str(caught.value)


PROGRAM = """
import os, signal, sys
from seenet.cli import main
from seenet.prediction.predictor import Predictor
at, number, arguments = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
stripes = Predictor.stripes
def stopped(self, *rest):
    global at
    at -= 1
    if at == 0 and os.environ.get("RANK", "0") == "0":
        os.kill(os.getpid(), number)
    return stripes(self, *rest)
Predictor.stripes = stopped
sys.argv = ["seenet", *arguments]
# What was started in the background inherits that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


@pytest.fixture
def model(tmp_path) -> Path:
    made = create_model("baseline", backbone="resnet10t", num_classes=SHAPES.num_classes)
    save_model(tmp_path / "tiny.safetensors", made, SHAPES)
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "tiny.safetensors"


def seenet_eval(model: Path, at: int, number: int, launcher: list[str] = [sys.executable]) -> subprocess.CompletedProcess[str]:  # noqa: B006
    data = ["data.kind=shapes", "data.size=48", "data.count=20"]
    arguments = ["eval", str(model), *data, "--device", "cpu", "--boundary-iou", "--out", "out"]
    return subprocess.run(
        [*launcher, "program.py", str(at), str(int(number)), *arguments], cwd=model.parent, capture_output=True, text=True, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}"}, check=False,
    )  # fmt: skip


def clear(out: Path) -> None:
    for path in (out / "result.json", out / "confusion.png", *(out / "images").iterdir()):
        path.unlink()


@pytest.mark.slow
def test_seenet_eval_killed_anywhere_ends_with_the_same_bytes(tmp_path, model):
    out, rng = tmp_path / "out", np.random.default_rng()
    done = seenet_eval(model, 0, 0)
    assert done.returncode == 0, done.stderr
    expected = (out / "result.json").read_bytes()
    assert sorted(path.name for path in out.iterdir()) == ["confusion.png", "images", "result.json"]
    clear(out)
    # 50 scenes, then 8 pictures to show: the last one is stopped when all is counted.
    moments = [(signal.SIGKILL, int(rng.integers(2, 49))), (signal.SIGTERM, 5), (signal.SIGINT, 3), (signal.SIGKILL, 0)]
    counted = 0
    for number, more in moments:
        at = more or 50 - counted + 3
        done = seenet_eval(model, at, number)
        code, word = {signal.SIGKILL: (-9, ""), signal.SIGTERM: (143, "terminated"), signal.SIGINT: (130, "interrupted")}[number]
        assert done.returncode == code, (at, done.stderr)
        assert word in done.stderr
        assert not (out / "result.json").exists()
        if counted:
            assert f"{counted} of 50 pictures were counted before" in done.stderr
        counted = min(50, counted + at - 1)
        if counted == 50:
            break
    done = seenet_eval(model, 0, 0)
    assert done.returncode == 0, done.stderr
    assert (out / "result.json").read_bytes() == expected
    assert sorted(path.name for path in out.iterdir()) == ["confusion.png", "images", "result.json"]


@pytest.mark.slow
@pytest.mark.parametrize("launchers", [(TWO, [sys.executable]), ([sys.executable], TWO)], ids=["two-then-one", "one-then-two"])
def test_ranks_and_their_number_change_nothing(tmp_path, model, launchers):
    out = tmp_path / "out"
    assert seenet_eval(model, 0, 0).returncode == 0
    expected = (out / "result.json").read_bytes()
    clear(out)
    first, second = launchers
    assert seenet_eval(model, 9, signal.SIGKILL, first).returncode != 0
    assert len(list((out / "partial").iterdir())) == (2 if first is TWO else 1)
    done = seenet_eval(model, 0, 0, second)
    assert done.returncode == 0, done.stderr
    assert "were counted before" in done.stderr
    assert (out / "result.json").read_bytes() == expected
    assert not (out / "partial").exists()
