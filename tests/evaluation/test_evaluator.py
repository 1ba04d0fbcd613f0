import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import distributed, multiprocessing

from seenet.core.errors import DataError, UsageError
from seenet.core.labels import LabelSet, voc_colours
from seenet.data.camvid import CAMVID11
from seenet.data.masks import MaskReader
from seenet.data.split import FileSplit, file_split
from seenet.evaluation import evaluator
from seenet.evaluation.confusion import confusion_matrix
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.metrics import open_metrics
from seenet.evaluation.metrics.iou import iou_scores
from seenet.prediction.predictor import Predictor
from tests.core.tiffs import noise, write_geotiff
from tests.evaluation.doubles import (
    LABELS,
    MemorySplit,
    first_channel,
    random_split,
    shown,
    split_of,
    tiny,
)
from tests.evaluation.metrics.test_boundaries import slow_distance, slow_edges

ONES = split_of(np.ones((4, 4), np.uint8), np.zeros((4, 4)))


def test_matrix_is_pooled_over_the_split_at_the_size_of_the_labels():
    split, predictor = random_split(5), tiny()
    split.pairs[2] = split.pairs[2][0], np.kron(split.pairs[1][1], np.ones((2, 3), np.uint8))
    found, chosen = evaluate(predictor, split), evaluate(predictor, split, indices=[4, 1, 1])
    single = [
        confusion_matrix(mask, predictor.scores(image, mask.shape).argmax(0).numpy(), 3, 255)
        for image, mask in split.pairs
    ]
    assert np.array_equal(found.matrix, sum(single))
    assert found.matrix.dtype == np.int64
    assert found.miou == iou_scores(sum(single))["miou"]
    assert np.array_equal([score.matrix(3) for score in found.per_image], single)
    assert chosen.keys == ["drive/001", "drive/004"]
    assert np.array_equal(chosen.matrix, single[1] + single[4])


@pytest.mark.parametrize("flip", [False, True])
def test_loss_is_the_mean_over_valid_pixels(flip):
    split, predictor = random_split(4), tiny(flip=flip)
    losses = []
    for image, mask in split.pairs:
        logs = predictor.scores(image).double().log_softmax(0).numpy()
        losses += [-logs[t, y, x] for (y, x), t in np.ndenumerate(mask) if t != 255]
    assert evaluate(predictor, split, loss=True).loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert evaluate(predictor, split).loss is None


def slow_bands(split, predictor, kind, widths):
    """Count the bands by their definition, pixel by pixel."""
    matrices = np.zeros((len(widths), 3, 3), np.int64)
    for image, mask in split.pairs:
        prediction = predictor.mask(image)
        distance = slow_distance(mask == 255 if kind == "trimap" else slow_edges(mask))
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
    split, predictor = MemorySplit(pairs), tiny()
    found, plain = (
        evaluate(predictor, split, boundary=kind, widths=widths),
        evaluate(predictor, split),
    )
    ordered = sorted(set(widths))
    assert np.array_equal(found.bands, slow_bands(split, predictor, kind, ordered))
    result = found.result()["boundary"]
    assert result["miou"] == {
        str(width): iou_scores(band)["miou"]
        for width, band in zip(ordered, found.bands, strict=True)
    }
    assert result["images_without_outline"] == 1
    # The matrices of the split and of an image are over all pixels, with bands or without.
    assert np.array_equal(found.matrix, plain.matrix)
    assert np.array_equal(found.per_image[0].matrix(3), plain.per_image[0].matrix(3))


@pytest.mark.parametrize(
    ("rim", "mask", "kind"),
    [
        (True, [[0, 1, 2, 255]], "trimap"),
        (False, [[0, 1, 2, 255]], "transition"),
        (True, [[1, 1, 1, 1]], None),
    ],
)
def test_auto_takes_the_bands_that_fit_the_labels(rim, mask, kind):
    labels = LabelSet("toy", LABELS.classes, LABELS.colours, rim=rim)
    split = split_of(np.array(mask, np.uint8), np.zeros((1, 4)), labels)
    found = evaluate(first_channel(labels), split, boundary="auto")
    plain = evaluate(first_channel(labels), split, boundary=kind)
    assert found.boundary == kind
    assert found.result() == plain.result()


def test_worst_and_best_images():
    cases = [
        ([0, 0, 1, 1], [0, 0, 1, 0], pytest.approx((2 / 3 + 1 / 2) / 2)),
        ([0, 0, 0, 0], [0, 0, 0, 0], 1.0),
        ([2, 2, 2, 2], [0, 0, 0, 0], 0.0),
        ([255] * 4, [0, 0, 0, 0], None),
    ]
    pairs = [
        split_of(np.array([truth], np.uint8), np.array([prediction])).pairs[0]
        for truth, prediction, _ in cases
    ]
    found = evaluate(first_channel(), MemorySplit(pairs))
    assert [score.miou(3) for score in found.per_image] == [miou for _, _, miou in cases]
    assert [score.index for score in found.worst(9)] == [2, 0, 1]
    assert [score.index for score in found.best(1)] == [1]


def test_an_absent_class_is_left_out_and_named():
    truth = np.array([[0, 1]], np.uint8)
    found = evaluate(first_channel(), split_of(truth, truth))
    result = found.result()
    assert result["miou"] == 1.0
    assert result["absent"] == ["tree"]
    tree = {"name": "tree", "iou": None, "accuracy": None, "dice": None, "pixels": 0}
    assert result["classes"][2] == tree
    assert "mean of 2" in shown(found) and "left out of the mean: tree" in shown(found)


def test_a_result_records_the_protocol():
    info = {"file": "tiny.safetensors", "sha256": "ab"}
    predictor = tiny(scales=(0.5, 1), flip=True, precision="bf16", info=info)
    result = evaluate(predictor, random_split(3)).result(command="seenet eval tiny")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    expected = {
        "data": "toy",
        "split": "val",
        "images": 3,
        "labels": "toy",
        "scales": [0.5, 1.0],
        "flip": True,
        "precision": "bf16",
        "model": info,
        "command": "seenet eval tiny",
        "absent": [],
        "boundary": None,
        "loss": None,
    }
    assert expected.items() <= result.items()
    assert all(result[key] for key in ("ignore_rule", "size_rule", "absent_rule", "version"))
    assert len(result["per_image"]) == 3
    assert np.array(result["confusion"]).shape == (3, 3)


def test_an_ignored_split_has_no_scores():
    split = split_of(np.full((3, 3), 255, np.uint8), np.zeros((3, 3)))
    found = evaluate(first_channel(), split, loss=True)
    assert (found.miou, found.loss, found.result()["images"]) == (None, None, 1)


@pytest.mark.parametrize("classes", [("a", "b", "c", "d"), ("sky", "tree", "road")])
def test_model_and_data_must_agree_on_classes(classes):
    labels = LabelSet("other", classes, voc_colours(len(classes)))
    with pytest.raises(DataError, match=r"classes|class 1"):
        evaluate(tiny(labels), random_split(1))


@pytest.mark.parametrize(
    ("split", "options", "error", "message"),
    [
        (ONES, {"boundary": "trimap"}, DataError, "--boundary none"),
        (ONES, {"boundary": "transition"}, DataError, "--boundary none"),
        (random_split(1, labels=CAMVID11), {"boundary": "trimap"}, DataError, "--boundary tran"),
        (ONES, {"boundary": "trimap", "widths": ()}, UsageError, "widths"),
        (ONES, {"boundary": "trimap", "widths": (3, 0)}, UsageError, "widths"),
        (ONES, {"indices": []}, DataError, "toy/val"),
        (split_of(np.uint8([[0, 77]]), np.zeros((1, 2))), {}, DataError, "drive/000: .*ids 77"),
    ],
)
def test_what_cannot_be_scored_is_refused(split, options, error, message):
    with pytest.raises(error, match=message):
        evaluate(tiny(split.labels), split, **options)


def result_of_split(journal: Path, bad: int | None) -> dict:
    """Evaluate a split, with a wrong label in image `bad`."""
    torch.set_num_threads(1)
    split = random_split(5)
    if bad is not None:
        split.pairs[bad][1][0, 0] = 99
    metrics = open_metrics(["boundary_iou", "conventions"], split)
    options = {"boundary": "trimap", "loss": True, "metrics": metrics, "journal": journal}
    return evaluate(tiny(), split, **options).result()


def evaluate_as_rank(rank: int, world: int, folder: Path, bad: int | None) -> None:
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    try:
        text = json.dumps(result_of_split(folder / "journal", bad))
    except DataError as error:
        text = json.dumps(str(error))
    (folder / f"{rank}.json").write_text(text)
    distributed.destroy_process_group()


@pytest.mark.parametrize("bad", [None, 1])
def test_two_processes_return_the_result_or_the_error_of_one(tmp_path, monkeypatch, bad):
    threads = torch.get_num_threads()
    multiprocessing.spawn(evaluate_as_rank, (2, tmp_path, bad), nprocs=2)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    if bad is None:
        whole = json.loads(json.dumps(result_of_split(tmp_path / "whole", None)))
        assert found == [whole] * 2
        # One process continues from the journals of both.
        monkeypatch.setattr(Predictor, "row_chunks", None)
        assert json.loads(json.dumps(result_of_split(tmp_path / "journal", None))) == whole
    else:
        assert "rank 1" in found[0] and "label ids 99" in found[1]
    torch.set_num_threads(threads)


@pytest.mark.parametrize("flip", [False, True])
def test_large_pictures_are_read_by_windows_to_the_same_counts(tmp_path, monkeypatch, flip):
    write_geotiff(tmp_path / "a.tif", noise(3, 60, 90), photometric="RGB")
    Image.fromarray(np.random.default_rng(0).integers(0, 3, (60, 90), np.uint8)).save(
        tmp_path / "a.png"
    )
    pair = ("a", tmp_path / "a.tif", tmp_path / "a.png")
    split = file_split("toy/val", LABELS, [pair], MaskReader("index"), empty="")
    whole = evaluate(tiny(flip=flip), split, loss=True)
    monkeypatch.setattr(evaluator, "LARGE", 60 * 90 - 1)
    monkeypatch.setattr(FileSplit, "read", None)  # reads whole pictures
    parts = evaluate(tiny(flip=flip), split, loss=True)
    assert np.array_equal(parts.matrix, whole.matrix) and parts.matrix.sum() == 60 * 90
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="60 x 80 pixels, but its picture"):
        evaluate(tiny(), split)
