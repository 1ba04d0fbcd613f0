"""Metrics that are counted in addition to the confusion matrix, one file each.

`seenet eval --metric NAME` takes a name of `BUILT_IN`; `--metric package.module:callable` takes a
subclass of `Metric`, or any callable that makes a `Metric` of a split.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from seenet.core.errors import UsageError, nearest
from seenet.core.files import load_callable, own_code
from seenet.data.split import Split

BUILT_IN = {
    "boundary_iou": "seenet.evaluation.metrics.boundary_iou:BoundaryIou",
    "cityscapes": "seenet.evaluation.metrics.cityscapes:CityscapesScores",
    "conventions": "seenet.evaluation.metrics.conventions:Conventions",
}
"""Callables by the name for `--metric`, which is also the key in a result file."""


class Metric(ABC):
    """A metric on a split. A subclass must define `count` and `result`.

    `count` sees one image at a time; `result` computes the metric from the counts of all images.
    """

    def __init__(self, split: Split) -> None:
        self.split, self.labels = split, split.labels

    @abstractmethod
    def count(self, index: int, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Count image `index` of the split.

        Args:
            truth, prediction: H x W ids of equal size; `self.labels.ignore` in the truth is void.

        Returns:
            A one-dimensional int64 array of any length. Integers are summed exactly, in any order
            of images and with any number of processes.
        """

    @abstractmethod
    def result(self, matrix: np.ndarray, counted: list[np.ndarray]) -> Any:
        """Return a JSON value from the confusion matrix C[t, p] and the counts of every image."""

    def stamp(self, index: int) -> str:
        """Describe further files that the counts depend on, such as by path, size and time."""
        return ""

    def columns(self, part: Any) -> dict[str, Sequence[float | None]]:
        """Return columns for the table of classes: by heading, a share per class and their mean."""
        return {}

    def tables(self, name: str, part: Any) -> list[RenderableType]:
        """Return the tables for the terminal; `part` is the metric's value in a result."""
        numbers = part if isinstance(part, Mapping) else {"": part}
        shown = [
            f"{key} {value:.4g}".strip() if isinstance(value, float) else f"{key} {value}".strip()
            for key, value in numbers.items()
            if isinstance(value, int | float | str)
        ]
        return [Text(f"{name}: {', '.join(shown)}")] if shown else []


def open_metrics(names: Iterable[str], split: Split) -> dict[str, Metric]:
    """Make the metrics of these names for a split, by name.

    Raises:
        UsageError: a name is unknown, cannot be imported, fails, or makes no `Metric`.
    """
    return {name: _open(name, split) for name in names}


def guarded(name: str) -> AbstractContextManager[None]:
    """Turn what the user's own metric raises in the block into a UsageError that names it."""
    return own_code(f"--metric {name}") if ":" in name else nullcontext()


def _open(name: str, split: Split) -> Metric:
    if name not in BUILT_IN and ":" not in name:
        raise UsageError(
            f"--metric {name}: unknown; {nearest(name, BUILT_IN)}, "
            "or your own as package.module:callable"
        )
    make = load_callable(BUILT_IN.get(name, name), "--metric", "a split")
    with guarded(name):
        metric = make(split)
    if not isinstance(metric, Metric):
        raise UsageError(
            f"--metric {name}: made {type(metric).__name__}, "
            "expected a seenet.evaluation.metrics.Metric"
        )
    return metric


def percent(share: float | None) -> str:
    """Format a share: 0.4567 -> "45.7"; "-" for None."""
    return "-" if share is None else f"{100 * share:.1f}"


def table(title: str, headings: Sequence[str], left: Iterable[str] = ()) -> Table:
    """Return an empty table; columns are right-aligned except those named in `left`."""
    made = Table(title=title, title_justify="left")
    for heading in headings:
        made.add_column(heading, justify="left" if heading in left else "right")
    return made
