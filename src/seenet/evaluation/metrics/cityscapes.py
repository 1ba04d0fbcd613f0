"""IoU and iIoU of classes and categories as Cityscapes' official script counts them (docs/metrics.md)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from seenet.core.errors import DataError, UsageError
from seenet.data.cityscapes import CITYSCAPES19, CITYSCAPES_CATEGORIES, CITYSCAPES_TRAIN_IDS, instance_path, read_instances
from seenet.data.split import Split, file_stamp
from seenet.evaluation.metrics import Metric, percent, table
from seenet.evaluation.metrics.iou import iou_scores, mean

AVERAGE_SIZES = {
    "person": 3462.4756337644, "rider": 3930.4788056518, "car": 12794.0202738185, "truck": 27855.1264367816,
    "bus": 35732.1511111111, "train": 67583.7075812274, "motorcycle": 6298.7200839748, "bicycle": 4672.3249222261,
}  # fmt: skip
"""Pixels of an average instance, as the official script has them: an instance weighs this / its own size."""

MEMBERS = [CITYSCAPES19.indices(names) for names in CITYSCAPES_CATEGORIES.values()]
"""trainIds of each category."""

CATEGORY_OF = np.array([place for place, members in enumerate(MEMBERS) for _ in members])
"""trainId -> place among the categories, which follow each other by trainId."""

TRAIN_IDS = np.array([CITYSCAPES_TRAIN_IDS.get(label, -1) for label in range(34)])
"""labelId -> trainId, -1 where not scored."""

MISSING = np.array([-1])
"""Counts of a picture without instanceIds."""


class CityscapesScores(Metric):
    """Count trainId, size, pixels of the right class and pixels of the right category of each instance."""

    def __init__(self, split: Split) -> None:
        super().__init__(split)
        if split.labels != CITYSCAPES19:
            raise UsageError(f"{split.name}: labels {split.labels.name}, but Cityscapes' scores are of {CITYSCAPES19.name}")

    def count(self, index: int, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Return int64 4 n for the n instances of one picture, by id; `MISSING` where it has no instanceIds file.

        Raises:
            DataError: that file cannot be read, has another size, or ids of no label.
        """
        path = self._instances(index)
        if path is None or not path.is_file():
            return MISSING
        instances = read_instances(path)
        if instances.shape != truth.shape:
            raise DataError(f"{path}: {_size(instances)} pixels, but its labels have {_size(truth)}; copy it again")
        return count_instances(instances, prediction).ravel()

    def stamp(self, index: int) -> str:
        """Return the instanceIds file by path, size and time."""
        path = self._instances(index)
        return file_stamp(path) if path else ""

    def _instances(self, index: int) -> Path | None:
        mask = self.split.paths(index)[1]
        return instance_path(mask) if mask else None

    def result(self, matrix: np.ndarray, counted: list[np.ndarray]) -> dict[str, Any]:
        """Return the four means, and IoU and iIoU by class and category, 0..1; None for what is absent or has no instances.

        Without instanceIds for each picture all iIoU are None, and `iiou_missing` says why.
        """
        without = sum(np.array_equal(counts, MISSING) for counts in counted)
        instances = None if without else np.concatenate([np.zeros(0, np.int64), *counted]).reshape(-1, 4)
        categories = _by_category(matrix)
        classes_iou, categories_iou = iou_scores(matrix)["iou"], iou_scores(categories)["iou"]
        classes_iiou, categories_iiou = _instance_iou(matrix, instances), _category_instance_iou(categories, instances)
        return {
            "iou_class": mean(classes_iou),
            "iiou_class": mean(classes_iiou),
            "iou_category": mean(categories_iou),
            "iiou_category": mean(categories_iiou),
            "classes": _named(CITYSCAPES19.classes, classes_iou, classes_iiou),
            "categories": _named(tuple(CITYSCAPES_CATEGORIES), categories_iou, categories_iiou),
            "iiou_missing": f"{without} of {len(counted)} pictures have no *_gtFine_instanceIds.png beside their labels"
            if without
            else None,
        }

    def tables(self, name: str, part: dict[str, Any]) -> list[RenderableType]:
        made = table("Cityscapes", ("", "IoU", "iIoU"), left=("",))
        for category, entry in part["categories"].items():
            made.add_row(category, percent(entry["iou"]), percent(entry["iiou"]))
        made.add_section()
        for level in ("class", "category"):
            made.add_row(f"mean, {level}", percent(part[f"iou_{level}"]), percent(part[f"iiou_{level}"]), style="bold")
        return [made, Text(f"no iIoU: {part['iiou_missing']}")] if part["iiou_missing"] else [made]


def count_instances(instances: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Count each instance, by ascending id.

    Args:
        instances: H x W instanceIds: labelId * 1000 + number; groups and stuff are below 1000.
        prediction: H x W trainIds.

    Returns:
        int64 n x 4: trainId, pixels, those predicted as it, those predicted as its category.
    """
    # The script asks for ids over 1000: `unlabeled`, labelId 0, has none.
    single = instances > 1000
    ids, predicted = instances[single].astype(np.int64), prediction[single]
    own = TRAIN_IDS[ids // 1000]
    scored = own >= 0
    ids, own, predicted = ids[scored], own[scored], predicted[scored]
    sizes = np.bincount(ids)
    right = np.bincount(ids[own == predicted], minlength=len(sizes))
    category = np.bincount(ids[CATEGORY_OF[own] == CATEGORY_OF[predicted]], minlength=len(sizes))
    found = np.flatnonzero(sizes)
    return np.stack([TRAIN_IDS[found // 1000], sizes[found], right[found], category[found]], 1)


def _by_category(matrix: np.ndarray) -> np.ndarray:
    """Take the classes of a category in C[t, p] together."""
    member = np.eye(len(CITYSCAPES_CATEGORIES), dtype=np.int64)[CATEGORY_OF]
    together: np.ndarray = member.T @ matrix @ member
    return together


def _instance_iou(matrix: np.ndarray, instances: np.ndarray | None) -> list[float | None]:
    """Return iIoU by class; None for classes without instances."""
    false = matrix.sum(0) - np.diag(matrix)
    return [_weighted(instances, [k], 2, int(false[k])) if name in AVERAGE_SIZES else None for k, name in enumerate(CITYSCAPES19.classes)]


def _category_instance_iou(categories: np.ndarray, instances: np.ndarray | None) -> list[float | None]:
    """Return iIoU by category; None where not all of its classes have instances."""
    false = categories.sum(0) - np.diag(categories)
    return [
        _weighted(instances, members, 3, int(false[place])) if AVERAGE_SIZES.keys() >= set(names) else None
        for place, (members, names) in enumerate(zip(MEMBERS, CITYSCAPES_CATEGORIES.values(), strict=True))
    ]


def _weighted(instances: np.ndarray | None, members: Sequence[int], column: int, false: int) -> float | None:
    """Return weighted true positives / (weighted true positives + weighted false negatives + false positives as pixels)."""
    if instances is None:
        return None
    chosen = instances[np.isin(instances[:, 0], members)]
    weights = [AVERAGE_SIZES[CITYSCAPES19.classes[k]] / size for k, size in chosen[:, :2].tolist()]
    # fsum: exact, so that it does not depend on the order of pictures.
    true = math.fsum(weight * hit for weight, hit in zip(weights, chosen[:, column].tolist(), strict=True))
    whole = math.fsum(weight * size for weight, size in zip(weights, chosen[:, 1].tolist(), strict=True))
    return true / (whole + false) if whole + false else None


def _named(names: Sequence[str], iou: list[float | None], iiou: list[float | None]) -> dict[str, dict[str, float | None]]:
    return {name: {"iou": one, "iiou": other} for name, one, other in zip(names, iou, iiou, strict=True)}


def _size(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape))
