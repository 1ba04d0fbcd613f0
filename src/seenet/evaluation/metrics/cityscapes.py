"""IoU and iIoU of classes and categories as Cityscapes' official script computes them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from seenet.core.errors import DataError, UsageError
from seenet.data.cityscapes import (
    CITYSCAPES19,
    CITYSCAPES_CATEGORIES,
    CITYSCAPES_TRAIN_IDS,
    instance_path,
    read_instances,
)
from seenet.data.split import Split, file_stamp
from seenet.evaluation.metrics import Metric, percent, table
from seenet.evaluation.metrics.iou import iou_scores, mean

AVERAGE_SIZES = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
"""Pixels of an average instance, from the official script; weight = average size / own size."""

AVERAGE_SIZE_OF = np.array([AVERAGE_SIZES.get(name, np.nan) for name in CITYSCAPES19.classes])
"""The same by trainId; NaN for classes without instances."""

CLASSES = [[train_id] for train_id in range(CITYSCAPES19.num_classes)]
CATEGORIES = [CITYSCAPES19.indices(names) for names in CITYSCAPES_CATEGORIES.values()]
"""trainIds of each category."""

CATEGORY_OF = np.array([place for place, members in enumerate(CATEGORIES) for _ in members])
"""Category index of each trainId; the members of a category have consecutive trainIds."""

TRAIN_IDS = np.array([CITYSCAPES_TRAIN_IDS.get(label, -1) for label in range(34)])
"""trainId of each labelId, -1 where not scored."""

MISSING = np.array([-1])
"""Counts of an image without an instanceIds file."""


class CityscapesScores(Metric):
    """IoU and instance-weighted iIoU by class and category."""

    def __init__(self, split: Split) -> None:
        super().__init__(split)
        if split.labels != CITYSCAPES19:
            raise UsageError(
                f"{split.name}: labels {split.labels.name}, but the Cityscapes scores need "
                f"{CITYSCAPES19.name}"
            )

    def count(self, index: int, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Return `count_instances` of one image, flat; `MISSING` without an instanceIds file.

        Raises:
            DataError: the file cannot be read, has another size, or holds unknown ids.
        """
        path = self._instance_file(index)
        if path is None or not path.is_file():
            return MISSING
        instances = read_instances(path)
        if instances.shape != truth.shape:
            raise DataError(
                f"{path}: found shape {instances.shape}, expected {truth.shape} as its labels have;"
                " copy the file again"
            )
        return count_instances(instances, prediction).ravel()

    def stamp(self, index: int) -> str:
        path = self._instance_file(index)
        return file_stamp(path) if path else ""

    def _instance_file(self, index: int) -> Path | None:
        mask = self.split.paths(index)[1]
        return instance_path(mask) if mask else None

    def result(self, matrix: np.ndarray, counted: list[np.ndarray]) -> dict[str, Any]:
        """Return the four means, and IoU and iIoU by class and category, in 0..1.

        Values are None for absent classes and for classes without instances. Unless every image has
        an instanceIds file all iIoU are None, and `iiou_missing` says why.
        """
        missing = sum(np.array_equal(counts, MISSING) for counts in counted)
        instances = None
        if not missing:
            instances = np.concatenate([np.zeros(0, np.int64), *counted]).reshape(-1, 4)
        member = np.eye(len(CATEGORIES), dtype=np.int64)[CATEGORY_OF]
        category_matrix = member.T @ matrix @ member
        class_iou, category_iou = iou_scores(matrix)["iou"], iou_scores(category_matrix)["iou"]
        class_iiou = _instance_iou(matrix, instances, CLASSES, column=2)
        category_iiou = _instance_iou(category_matrix, instances, CATEGORIES, column=3)
        return {
            "iou_class": mean(class_iou),
            "iiou_class": mean(class_iiou),
            "iou_category": mean(category_iou),
            "iiou_category": mean(category_iiou),
            "classes": _by_name(CITYSCAPES19.classes, class_iou, class_iiou),
            "categories": _by_name(tuple(CITYSCAPES_CATEGORIES), category_iou, category_iiou),
            "iiou_missing": f"{missing} of {len(counted)} images have no "
            "*_gtFine_instanceIds.png beside their labels"
            if missing
            else None,
        }

    def tables(self, name: str, part: dict[str, Any]) -> list[RenderableType]:
        made = table("Cityscapes", ("", "IoU", "iIoU"), left=("",))
        for category, entry in part["categories"].items():
            made.add_row(category, percent(entry["iou"]), percent(entry["iiou"]))
        made.add_section()
        for level in ("class", "category"):
            iou, iiou = percent(part[f"iou_{level}"]), percent(part[f"iiou_{level}"])
            made.add_row(f"mean, {level}", iou, iiou, style="bold")
        return [made, Text(f"no iIoU: {part['iiou_missing']}")] if part["iiou_missing"] else [made]


def count_instances(instances: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Count the pixels of each instance, by ascending id.

    Args:
        instances: H x W instanceIds, labelId * 1000 + number; groups and stuff are below 1000.
        prediction: H x W trainIds.

    Returns:
        int64 n x 4: trainId, pixels, pixels predicted as this class, as its category.
    """
    # As in the official script, which takes ids over 1000.
    single = instances > 1000
    ids, predicted = instances[single].astype(np.int64), prediction[single]
    own = TRAIN_IDS[ids // 1000]
    scored = own >= 0
    ids, own, predicted = ids[scored], own[scored], predicted[scored]
    sizes = np.bincount(ids)
    hits = np.bincount(ids[own == predicted], minlength=len(sizes))
    category_hits = np.bincount(
        ids[CATEGORY_OF[own] == CATEGORY_OF[predicted]], minlength=len(sizes)
    )
    present = np.flatnonzero(sizes)
    columns = [TRAIN_IDS[present // 1000], sizes[present], hits[present], category_hits[present]]
    return np.stack(columns, 1)


def _instance_iou(
    matrix: np.ndarray, instances: np.ndarray | None, groups: list[list[int]], column: int
) -> list[float | None]:
    """Return the iIoU of each group of classes.

    iIoU is weighted true positives / (weighted true positives + weighted false negatives + false
    positives as pixels).

    Args:
        matrix: C[t, p] of the groups.
        instances: `count_instances` of all images, of which `column` holds the hits.

    Returns:
        None where a class of the group has no instances, or nothing is scored.
    """
    if instances is None:
        return [None] * len(groups)
    false_positives = matrix.sum(0) - np.diag(matrix)
    weights = AVERAGE_SIZE_OF[instances[:, 0]] / instances[:, 1]
    hits, pixels = weights * instances[:, column], weights * instances[:, 1]
    scores: list[float | None] = []
    for members, false in zip(groups, false_positives.tolist(), strict=True):
        chosen = np.isin(instances[:, 0], members)
        # fsum is exact, so the order of the images does not matter.
        total = math.fsum(pixels[chosen]) + false
        scored = total and not np.isnan(AVERAGE_SIZE_OF[members]).any()
        scores.append(math.fsum(hits[chosen]) / total if scored else None)
    return scores


def _by_name(
    names: Sequence[str], iou: list[float | None], iiou: list[float | None]
) -> dict[str, dict[str, float | None]]:
    return {
        name: {"iou": one, "iiou": other} for name, one, other in zip(names, iou, iiou, strict=True)
    }
