"""What a page shows of a result file."""

from seenet.core.labels import SHAPES
from seenet.report import tables
from tests.report.test_page import synthetic


def test_a_class_predicted_without_truth_is_not_called_absent() -> None:
    result = synthetic(SHAPES)
    entry = result["classes"][-1]  # type: ignore[index]
    entry.update(iou=0.0, accuracy=None, dice=0.0)
    row = tables.classes(result, SHAPES)[-1]
    assert (row["iou"], row["accuracy"], row["dice"]) == ("0.0 %", "no truth", "0.0 %")
