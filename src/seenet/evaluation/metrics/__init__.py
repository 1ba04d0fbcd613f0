"""Metrics that are counted beside the confusion matrix, one file each.

A metric counts one picture at a time and makes its part of the result from all pictures' counts.
`seenet eval --metric NAME` takes one of `BUILT_IN`, `--metric package.module:callable` one of yours:
a class like `Metric`, or any callable that makes such an object of a split.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from seenet.core.errors import UsageError, nearest
from seenet.core.files import load_callable
from seenet.data.split import Split

BUILT_IN = {
    "boundary_iou": "seenet.evaluation.metrics.boundary_iou:BoundaryIou",
    "cityscapes": "seenet.evaluation.metrics.cityscapes:CityscapesScores",
    "conventions": "seenet.evaluation.metrics.conventions:Conventions",
}
"""By the name for `--metric`, which is also the key in a result file. A new one is a file and a line here."""


class Metric(ABC):
    """A metric on a split: `count` and `result`. The other methods may stay as they are."""

    def __init__(self, split: Split) -> None:
        self.split, self.labels = split, split.labels

    @abstractmethod
    def count(self, index: int, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Count picture `index` of the split.

        Args:
            truth, prediction: H x W ids, of equal size; `self.labels.ignore` in the truth is void.

        Returns:
            int64, one dimension of any length. Counts are integers, so that they travel between
            processes exactly and the order of pictures changes nothing.
        """

    @abstractmethod
    def result(self, matrix: np.ndarray, counted: list[np.ndarray]) -> Any:
        """Return a JSON value from the confusion matrix C[t, p] and the counts of every picture."""

    def stamp(self, index: int) -> str:
        """Return what decides those counts besides the ids, such as a further file by size and time."""
        return ""

    def columns(self, part: Any) -> dict[str, Sequence[float | None]]:
        """Return columns for the table of classes, by heading: a share for each class, then their mean."""
        return {}

    def tables(self, name: str, part: Any) -> list[RenderableType]:
        """Return what the terminal shows of `part`, the metric's value in a result."""
        numbers = part if isinstance(part, Mapping) else {"": part}
        plain = {key: value for key, value in numbers.items() if isinstance(value, int | float | str)}
        shown = [f"{key} {value:.4g}".strip() if isinstance(value, float) else f"{key} {value}".strip() for key, value in plain.items()]
        return [Text(f"{name}: {', '.join(shown)}")] if shown else []


def open_metrics(names: Iterable[str], split: Split) -> dict[str, Metric]:
    """Make the metrics of these names for a split, by name.

    Raises:
        UsageError: a name that is unknown, cannot be imported, or makes no metric.
    """
    return {name: _open(name, split) for name in names}


def _open(name: str, split: Split) -> Metric:
    if name not in BUILT_IN and ":" not in name:
        raise UsageError(f"--metric {name}: unknown; {nearest(name, BUILT_IN)}, or package.module:callable of yours")
    made = load_callable(BUILT_IN.get(name, name), "--metric", "a split")(split)
    if not isinstance(made, Metric):
        raise UsageError(f"--metric {name}: made {type(made).__name__}, expected a seenet.evaluation.metrics.Metric")
    return made


def percent(share: float | None) -> str:
    """0.4567 -> "45.7"; "-" where there is none."""
    return "-" if share is None else f"{100 * share:.1f}"


def table(title: str, headings: Sequence[str], left: Iterable[str] = ()) -> Table:
    """Return an empty table; columns are aligned to the right, those named in `left` to the left."""
    made = Table(title=title, title_justify="left")
    for heading in headings:
        made.add_column(heading, justify="left" if heading in left else "right")
    return made
