"""What else is counted in the same pass over the pictures, besides the confusion matrix and its bands."""

from typing import Any, Protocol

import numpy as np


class Measure(Protocol):
    """Counts one picture at a time, then makes its part of a result from all pictures' counts.

    Counts are integers, so that they travel between ranks exactly and their order changes nothing.
    """

    @property
    def key(self) -> str:
        """Its key in a result file."""

    def count(self, index: int, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """What picture `index` of the split adds, int64, one dimension of any length, from its H x W ids."""

    def stamp(self, index: int) -> str:
        """What decides those counts besides the ids, such as a further file by size and time; may be empty."""

    def result(self, matrix: np.ndarray, counted: list[np.ndarray]) -> Any:
        """JSON value from the confusion matrix C[t, p] and the counts of every picture."""
