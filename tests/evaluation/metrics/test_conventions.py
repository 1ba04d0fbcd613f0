import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchmetrics.functional.classification import multiclass_jaccard_index

from seenet.core.labels import LabelSet, voc_colours
from seenet.evaluation.confusion import confusion_matrix
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.metrics.conventions import TABLE, Conventions, copies, miou_with_absent
from seenet.prediction.predictor import Predictor
from tests.evaluation.doubles import FirstChannel, MemorySplit, shown

LABELS = LabelSet("toy", ("sky", "road", "tree", "car", "bus"), voc_colours(5))
METRIC = Conventions(MemorySplit([], LABELS))


def pair(seed: int, size: tuple[int, int] = (40, 60)) -> tuple[np.ndarray, np.ndarray]:
    """Ids of classes 0, 1 and 3, some ignored, and predictions that also say 2; never 4."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 3, 255], size).astype(np.uint8)
    prediction = np.where((truth < 4) & (rng.random(size) < 0.7), truth, rng.integers(0, 4, size)).astype(np.uint8)
    return truth, prediction


def torchmetrics_iou(pairs, absent: float) -> torch.Tensor:
    truth = torch.cat([torch.from_numpy(truth.ravel().astype(np.int64)) for truth, _ in pairs])
    prediction = torch.cat([torch.from_numpy(prediction.ravel().astype(np.int64)) for _, prediction in pairs])
    return multiclass_jaccard_index(prediction, truth, 5, average=None, ignore_index=255, zero_division=absent)


def rows(pairs) -> dict[tuple[str, str | float], float | None]:
    matrix = sum(confusion_matrix(*one, 5, 255) for one in pairs)
    found = METRIC.result(matrix, [METRIC.count(0, *one) for one in pairs])
    assert [(row["size"], row["absent"], row["whose"]) for row in found] == list(TABLE)
    return {(row["size"], row["absent"]): row["miou"] for row in found}


def test_absent_classes_as_torchmetrics_has_them():
    pairs = [pair(0), pair(1)]
    found = rows(pairs)
    for absent in (0.0, 1.0):
        assert found["own", absent] == pytest.approx(float(torchmetrics_iou(pairs, absent).mean()), abs=1e-6)
    assert torch.isnan(torchmetrics_iou(pairs, math.nan).mean())
    assert found["own", "NaN"] is None
    assert found["own", "left out"] == pytest.approx(float(torchmetrics_iou(pairs, math.nan).nanmean()), abs=1e-6)
    assert found["own", 0.0] < found["own", "left out"] < found["own", 1.0]


def test_absent_as_1_is_what_smp_says():
    smp = pytest.importorskip("segmentation_models_pytorch").metrics
    truth, prediction = (torch.from_numpy(ids.astype(np.int64))[None] for ids in pair(2))
    # SMP counts ignored pixels by another id than a class's.
    statistics = smp.get_stats(prediction, torch.where(truth == 255, -1, truth), mode="multiclass", num_classes=5, ignore_index=-1)
    expected = float(smp.iou_score(*statistics, reduction="macro", zero_division=1.0))
    assert rows([pair(2)])["own", 1.0] == pytest.approx(expected, abs=1e-6)


def test_nothing_absent_makes_all_of_one_size_equal():
    truth = np.arange(5, dtype=np.uint8).repeat(40).reshape(20, 10)
    found = rows([(truth, np.roll(truth, 1, axis=0))])
    assert len({value for (size, _), value in found.items() if size == "own"}) == 1
    assert found["520", "left out"] == found["520", "NaN"]


@pytest.mark.parametrize("size", [(40, 60), (700, 610), (520, 521), (1, 3)])
def test_resized_as_pillow_and_torchmetrics_have_it(size):
    truth, prediction = pair(3, size)
    least = min(size)
    height, width = (int(520 * side / least) for side in size)
    resized = [np.asarray(Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST)) for ids in (truth, prediction)]
    expected = torchmetrics_iou([tuple(resized)], math.nan)
    found = rows([(truth, prediction)])
    assert found["520", "left out"] == pytest.approx(float(expected.nanmean()), abs=1e-6)
    assert found["520", "NaN"] is None


def resized_ids(ids, shorter=520):
    rows, columns = copies(*ids.shape, shorter)
    return np.repeat(np.repeat(ids, rows, 0), columns, 1)


def test_a_long_narrow_picture_takes_no_more_than_itself():
    ids = np.random.default_rng(0).integers(0, 5, (1, 100_000)).astype(np.uint8)
    cells, pixels = METRIC.count(0, ids, ids).reshape(2, -1)
    assert pixels.sum() == 520 * 520 * 100_000
    assert pixels.tolist() == [520 * 520 * int((ids == cell // LABELS.num_classes).sum()) for cell in cells]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50))
def test_resized_ids_by_fractions(height, width, shorter):
    ids = np.arange(height * width).reshape(height, width)
    found = resized_ids(ids, shorter)
    assert found.shape == tuple(int(Fraction(shorter * side, min(height, width))) for side in (height, width))
    for at, side, get in ((0, height, lambda i: found[i, 0] // width), (1, width, lambda i: found[0, i] % width)):
        for i in range(found.shape[at]):
            assert get(i) == int((Fraction(i) + Fraction(1, 2)) * side / found.shape[at])


def test_the_size_of_the_torchvision_reference():
    from torchvision.transforms.v2.functional import InterpolationMode, resize

    ids = np.random.default_rng(0).integers(0, 5, (360, 480)).astype(np.uint8)
    expected = resize(torch.from_numpy(ids)[None], [520], interpolation=InterpolationMode.NEAREST_EXACT)[0].numpy()
    assert np.array_equal(resized_ids(ids), expected)


def test_nothing_scored():
    empty = np.zeros((5, 5), np.int64)
    assert [miou_with_absent(empty, absent) for absent in ("left out", 0.0, 1.0, "NaN")] == [None, 0, 1, None]


def test_one_pass_and_one_table():
    pairs = []
    for seed, size in ((0, (20, 30)), (1, (25, 21))):
        truth, prediction = pair(seed, size)
        pairs.append((np.repeat(prediction[:, :, None], 3, 2), truth))
    split = MemorySplit(pairs, LABELS)
    one = Predictor(FirstChannel(5), LABELS, device="cpu")
    found = evaluate(one, split, metrics={"conventions": METRIC})
    assert np.array_equal(found.matrix, evaluate(one, split).matrix)
    result = found.result()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert {(row["size"], row["absent"]): row["miou"] for row in result["conventions"]} == rows([pair(0, (20, 30)), pair(1, (25, 21))])
    assert result["conventions"][0]["miou"] == result["miou"]
    text = shown(found)
    for word in ("mIoU by convention", "NaN", "count as 1", "mmsegmentation", "PaddleSeg", "Hugging Face"):
        assert word in text
