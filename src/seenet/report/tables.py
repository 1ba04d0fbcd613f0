"""What a page shows of a result file: numbers, classes, confusions."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from seenet.core.errors import DataError
from seenet.core.labels import LabelSet
from seenet.evaluation.pictures import MOST_NAMED, confusion_figure
from seenet.report.encode import number, percent, png_uri

PAIRS = 6
"""Confusions listed in words."""


def read_result(path: Path, labels: LabelSet) -> dict[str, Any] | None:
    """val.json, None where training has not validated yet; DataError where it does not belong to the model."""
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        names, shape = [entry["name"] for entry in result["classes"]], np.shape(result["confusion"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a result file ({type(error).__name__}); validate again, or remove it") from None
    if names != list(labels.classes) or shape != (len(names), len(names)):
        raise DataError(f"{path}: {len(names)} classes that are not the model's {labels.num_classes}; it belongs to another run")
    return dict(result)


def numbers(result: dict[str, Any] | None) -> list[tuple[str, str]]:
    if result is None:
        return []
    loss = result.get("loss")
    return [
        (percent(result["miou"], "none"), f"mIoU on {result['data']}/{result['split']}, {counted(result['images'], 'image')}"),
        (percent(result["pixel_accuracy"], "none"), "pixel accuracy"),
        (percent(result["mean_class_accuracy"], "none"), "mean class accuracy"),
        (percent(result["frequency_weighted_iou"], "none"), "frequency-weighted IoU"),
        (f"{loss:.4f}" if loss is not None else "not measured", "cross entropy, nats a pixel"),
    ]


def classes(result: dict[str, Any] | None, labels: LabelSet) -> list[dict[str, Any]]:
    if result is None:
        return []
    pixels = sum(entry["pixels"] for entry in result["classes"])
    rows = []
    for index, entry in enumerate(result["classes"]):
        absent = entry["iou"] is None
        # Without truth there is no accuracy, though the class is predicted: not "absent".
        rows.append({
            "name": entry["name"], "colour": labels.colours[index], "iou": percent(entry["iou"]), "width": 100 * (entry["iou"] or 0),
            "absent": absent, "accuracy": percent(entry["accuracy"], "absent" if absent else "no truth"), "dice": percent(entry["dice"]),
            "pixels": number(entry["pixels"]), "share": percent(entry["pixels"] / pixels if pixels else None, "none"),
        })  # fmt: skip
    return rows


def _shares(result: dict[str, Any]) -> np.ndarray:
    """K x K in 0..1, NaN in rows without truth."""
    matrix = np.array(result["confusion"], np.int64)
    rows = matrix.sum(1, keepdims=True)
    shares: np.ndarray = np.divide(matrix, rows, out=np.full(matrix.shape, np.nan), where=rows > 0)
    return shares


def matrix(result: dict[str, Any] | None, labels: LabelSet) -> list[tuple[str, list[tuple[str, float]]]]:
    """(class, (text, share) of each cell), where the classes are few enough for a table."""
    if result is None or labels.num_classes > MOST_NAMED:
        return []
    rows = []
    for name, shares in zip(labels.classes, _shares(result), strict=True):
        cells = [("", 0.0) if np.isnan(s) else (f"{100 * s:.0f}" if s >= 0.005 else "", round(float(s), 3)) for s in shares]
        rows.append((name, cells))
    return rows


def figure(result: dict[str, Any] | None, labels: LabelSet) -> str:
    if result is None or labels.num_classes <= MOST_NAMED:
        return ""
    return png_uri(confusion_figure(np.array(result["confusion"], np.int64), labels))


def pairs(result: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """(truth, prediction, share of the truth's pixels) of the most frequent confusions."""
    if result is None:
        return []
    shares = np.nan_to_num(_shares(result))
    np.fill_diagonal(shares, 0)
    names = [entry["name"] for entry in result["classes"]]
    order = np.argsort(-shares, axis=None, kind="stable")[:PAIRS]
    found = [(int(place) // len(names), int(place) % len(names)) for place in order]
    return [(names[t], names[p], percent(float(shares[t, p]))) for t, p in found if shares[t, p] >= 0.0005]


def counted(count: int, what: str) -> str:
    return f"{number(count)} {what}{'' if count == 1 else 's'}"
