import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seenet.core.errors import DataError, NotFiniteError, UsageError
from seenet.core.labels import LabelSet, voc_colours
from seenet.data.camvid import CAMVID11
from seenet.evaluation.confusion import confusion_matrix
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.metrics import open_metrics
from seenet.evaluation.metrics.iou import iou_scores
from seenet.prediction.predictor import Predictor
from tests.evaluation.doubles import LABELS, FirstChannel, MemorySplit, random_split
from tests.evaluation.metrics.test_boundaries import slow_distance, slow_edges
from tests.prediction.doubles import TinyNet

ROOT = Path(__file__).parents[2]


def predictor(**keywords) -> Predictor:
    return Predictor(TinyNet(), LABELS, device="cpu", info={"file": "tiny.safetensors", "sha256": "ab"}, **keywords)


def test_matrix_is_pooled_over_the_set():
    split, one = random_split(5), predictor()
    found = evaluate(one, split)
    expected = sum(confusion_matrix(mask, one.mask(image), 3, 255) for image, mask in split.pairs)
    assert np.array_equal(found.matrix, expected)
    assert found.matrix.dtype == np.int64
    assert found.miou == iou_scores(expected)["miou"]
    for score, (image, mask) in zip(found.per_image, split.pairs, strict=True):
        assert np.array_equal(score.matrix(3), confusion_matrix(mask, one.mask(image), 3, 255))


def test_the_label_keeps_its_size_and_scores_take_it():
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (20, 30, 3), np.uint8), rng.integers(0, 3, (31, 47)).astype(np.uint8)
    one = predictor()
    expected = one.scores(image, (31, 47)).argmax(0).numpy()
    assert np.array_equal(evaluate(one, MemorySplit([(image, mask)])).matrix, confusion_matrix(mask, expected, 3, 255))


@pytest.mark.parametrize("flip", [False, True])
def test_loss_is_the_mean_over_valid_pixels(flip):
    split, one = random_split(4), predictor(flip=flip)
    total, pixels = 0.0, 0
    for image, mask in split.pairs:
        logs = one.scores(image).double().log_softmax(0).numpy()
        for (y, x), t in np.ndenumerate(mask):
            if t != 255:
                total, pixels = total - logs[t, y, x], pixels + 1
    assert evaluate(one, split, loss=True).loss == pytest.approx(total / pixels, rel=1e-5)
    assert evaluate(one, split).loss is None


def oracle_bands(split, one, kind, widths):
    """Definitions, word by word, with loops."""
    matrices = np.zeros((len(widths), 3, 3), np.int64)
    for image, mask in split.pairs:
        prediction = one.mask(image)
        distance = slow_distance(mask == 255) if kind == "trimap" else slow_distance(slow_edges(mask))
        if distance is None:
            continue
        distance = distance + (kind == "transition")
        for at, width in enumerate(widths):
            for (y, x), t in np.ndenumerate(mask):
                if t != 255 and distance[y, x] <= width:
                    matrices[at, t, prediction[y, x]] += 1
    return matrices


@pytest.mark.parametrize("kind", ["trimap", "transition"])
@pytest.mark.parametrize("widths", [(1, 2, 5), (40, 1, 3, 3), (2,)])
def test_bands_equal_the_definition(kind, widths):
    rng = np.random.default_rng(3)
    pairs = []
    for _ in range(3):
        mask = np.kron(rng.integers(0, 3, (3, 3)), np.ones((5, 5), int)).astype(np.uint8)
        mask[rng.random(mask.shape) < 0.02] = 255
        pairs.append((rng.integers(0, 256, (15, 15, 3), np.uint8), mask))
    pairs.append((pairs[0][0], np.ones((15, 15), np.uint8)))
    split, one = MemorySplit(pairs), predictor()
    found = evaluate(one, split, boundary=kind, widths=widths)
    ordered = sorted(set(widths))
    assert np.array_equal(found.bands, oracle_bands(split, one, kind, ordered))
    assert np.array_equal(found.matrix, evaluate(one, split).matrix)
    result = found.result()["boundary"]
    assert list(result["miou"]) == [str(width) for width in ordered]
    assert result["images_without_outline"] == 1
    assert result["miou"][str(ordered[0])] == iou_scores(found.bands[0])["miou"]
    # A picture's own matrix is over all of it, bands or not.
    assert np.array_equal(found.per_image[0].matrix(3), confusion_matrix(pairs[0][1], one.mask(pairs[0][0]), 3, 255))


def test_bands_are_refused_where_they_mean_nothing():
    split = random_split(2)
    plain = MemorySplit([(image, np.ones_like(mask)) for image, mask in split.pairs])
    for kind in ("trimap", "transition"):
        with pytest.raises(DataError, match=r"no (rim|edge) in any label"):
            evaluate(predictor(), plain, boundary=kind)
    blobs = random_split(1, labels=CAMVID11)
    with pytest.raises(DataError, match="--boundary transition") as caught:
        evaluate(Predictor(FirstChannel(11), CAMVID11, device="cpu"), blobs, boundary="trimap")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("widths", [(), (3, 0), (-1,)])
def test_widths_are_pixels_from_1(widths):
    with pytest.raises(UsageError, match="from 1"):
        evaluate(predictor(), random_split(1), boundary="trimap", widths=widths)


def test_auto_takes_the_bands_that_fit_the_labels():
    rng = np.random.default_rng(1)
    pairs = [(rng.integers(0, 256, (9, 9, 3), np.uint8), rng.integers(0, 3, (9, 9)).astype(np.uint8))]
    pairs[0][1][4, 4] = 255
    one, rimless = predictor(), LabelSet("toy", LABELS.classes, LABELS.colours, rim=False)
    assert evaluate(one, MemorySplit(pairs), boundary="auto").boundary == "trimap"
    edges = evaluate(one, MemorySplit(pairs, rimless), boundary="auto")
    assert edges.boundary == "transition"
    assert np.array_equal(edges.bands, evaluate(one, MemorySplit(pairs, rimless), boundary="transition").bands)
    pairs[0][1][:] = 1
    none = evaluate(one, MemorySplit(pairs), boundary="auto")
    assert none.boundary is None
    assert none.result()["boundary"] is None
    assert np.array_equal(none.matrix, evaluate(one, MemorySplit(pairs)).matrix)


def test_indices_choose_pictures():
    split, one = random_split(6), predictor()
    found = evaluate(one, split, indices=[4, 1, 1])
    assert found.keys == ["drive/001", "drive/004"]
    assert np.array_equal(found.matrix, evaluate(one, MemorySplit([split.pairs[1], split.pairs[4]])).matrix)


def test_worst_and_best_pictures():
    masks = [
        np.array([[0, 0, 1, 1]], np.uint8),
        np.array([[0, 0, 0, 0]], np.uint8),
        np.array([[2, 2, 2, 2]], np.uint8),
        np.full((1, 4), 255, np.uint8),
    ]
    answers = [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    pairs = [(np.array([[[v, 0, 0] for v in answer]], np.uint8), mask) for answer, mask in zip(answers, masks, strict=True)]
    found = evaluate(Predictor(FirstChannel(3), LABELS, device="cpu"), MemorySplit(pairs))
    assert [score.miou(3) for score in found.per_image] == [pytest.approx((2 / 3 + 1 / 2) / 2), 1.0, 0.0, None]
    assert [score.index for score in found.worst(9)] == [2, 0, 1]
    assert [score.index for score in found.best(1)] == [1]


def test_an_absent_class_is_left_out_and_told():
    mask = np.array([[0, 1]], np.uint8)
    image = np.array([[[0, 0, 0], [1, 0, 0]]], np.uint8)
    result = evaluate(Predictor(FirstChannel(3), LABELS, device="cpu"), MemorySplit([(image, mask)])).result()
    assert result["miou"] == 1.0
    assert result["absent"] == ["tree"]
    assert result["classes"][2] == {"name": "tree", "iou": None, "accuracy": None, "dice": None, "pixels": 0}


def test_a_result_says_all_that_it_must():
    one = predictor(scales=(0.5, 1), flip=True, precision="bf16")
    result = evaluate(one, random_split(3)).result(command="seenet eval tiny")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    expected = {
        "data": "toy", "split": "val", "images": 3, "labels": "toy", "scales": [0.5, 1.0], "flip": True,
        "precision": "bf16", "model": {"file": "tiny.safetensors", "sha256": "ab"}, "command": "seenet eval tiny",
        "absent": [], "boundary": None, "loss": None,
    }  # fmt: skip
    assert expected.items() <= result.items()
    assert "255" in result["ignore_rule"]
    assert "bilinear" in result["size_rule"]
    assert result["version"]
    assert len(result["per_image"]) == 3
    assert np.array(result["confusion"]).shape == (3, 3)


def test_all_ignored_gives_none():
    split = MemorySplit([(np.zeros((3, 3, 3), np.uint8), np.full((3, 3), 255, np.uint8))])
    found = evaluate(predictor(), split, loss=True)
    assert found.miou is None
    assert found.loss is None
    assert math.isfinite(found.result()["images"])


@pytest.mark.parametrize(
    "labels",
    [
        LabelSet("four", ("a", "b", "c", "d"), voc_colours(4)),
        LabelSet("other", ("sky", "tree", "road"), voc_colours(3)),
    ],
)
def test_model_and_data_must_agree_on_classes(labels):
    with pytest.raises(DataError, match=r"classes|class 1"):
        evaluate(Predictor(TinyNet(labels.num_classes), labels, device="cpu"), random_split(1))


def test_a_bad_label_names_the_picture():
    split = random_split(3)
    split.pairs[1][1][2, 2] = 77
    with pytest.raises(DataError, match=r"toy/val drive/001: label ids 77 \(1 pixels\)"):
        evaluate(predictor(), split)


def test_nothing_to_score_and_weights_of_nan():
    with pytest.raises(DataError, match="no picture"):
        evaluate(predictor(), random_split(3), indices=[])
    model = TinyNet()
    torch.nn.init.constant_(model.conv.weight, math.nan)
    with pytest.raises(NotFiniteError):
        evaluate(Predictor(model, LABELS, device="cpu"), random_split(1))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_every_size_from_one_pixel(height, width, seed):
    split = random_split(2, seed=seed, size=(height, width))
    found = evaluate(predictor(scales=(0.3, 1)), split)
    assert found.matrix.sum() == sum((mask != 255).sum() for _, mask in split.pairs)


PROGRAM = """
import json, sys
from datetime import timedelta
import torch
from torch import distributed
from seenet.core.errors import DataError
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.metrics import open_metrics
from seenet.evaluation.metrics import open_metrics
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
    metrics = open_metrics(["boundary_iou", "conventions"], split)
    found = evaluate(Predictor(TinyNet(), LABELS, device="cpu"), split, boundary="trimap", loss=True, metrics=metrics)
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
        metrics = open_metrics(["boundary_iou", "conventions"], random_split(1))
        alone = evaluate(Predictor(TinyNet(), LABELS, device="cpu"), random_split(5), boundary="trimap", loss=True, metrics=metrics)
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
