"""What a split holds: pixels and pictures of each class, sizes, and the class weights that follow."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from seenet.core.errors import DataError
from seenet.core.images import image_size
from seenet.core.labels import LabelSet
from seenet.data.check import check_ids, check_split, no_class
from seenet.data.split import FileSplit, Split
from seenet.data.together import read_together

Counted = tuple[dict[int, int], tuple[int, int]]
"""Pixels by id of a mask, and its height and width."""


@dataclass(frozen=True)
class SplitStats:
    """Counts over a split. `holding_pixels[k]`: all pixels, void too, of the pictures that hold class k."""

    labels: LabelSet
    pixels: np.ndarray
    void: int
    images: np.ndarray
    holding_pixels: np.ndarray
    sizes: Counter[tuple[int, int]]

    def median_frequency(self) -> list[float]:
        """median(f) / f_k with f_k = pixels of k / pixels of the pictures that hold k; 0 for a class that is not there.

        DataError where no pixel has a class.
        """
        present = self.pixels > 0
        if not present.any():
            raise DataError(no_class(sum(self.sizes.values()), self.labels))
        frequency = np.divide(self.pixels, self.holding_pixels, out=np.zeros(len(self.pixels)), where=present)
        middle = median(frequency[present].tolist())
        return [float(middle / value) if value else 0.0 for value in frequency]

    def table(self) -> str:
        """One line a class: share of the labelled pixels, pictures, weight; then sizes and void."""
        total = max(1, int(self.pixels.sum()))
        lines = [f"{'class':<16} {'% of pixels':>11} {'pictures':>9} {'weight':>7}"]
        for name, pixels, images, weight in zip(self.labels.classes, self.pixels, self.images, self.median_frequency(), strict=True):
            lines.append(f"{name:<16} {100 * pixels / total:>11.3f} {images:>9} {weight:>7.3f}")
        sizes = ", ".join(f"{height}x{width} ({count})" for (height, width), count in self.sizes.most_common(4))
        return "\n".join([*lines, f"sizes: {sizes}", f"void: {100 * self.void / (total + self.void):.2f} % of all pixels"])


def split_stats(split: Split, *, threads: int = 2) -> SplitStats:
    """What is counted while files are checked, or remembered of that; drawn scenes are drawn. Processes and DataError as `check_split`."""
    return gather(split.labels, _of_files(split, threads) if isinstance(split, FileSplit) else _of_scenes(split, threads))


def gather(labels: LabelSet, masks: Iterable[Counted]) -> SplitStats:
    """Add up what was counted of single masks; an id that is no class is void."""
    count = labels.num_classes
    pixels, images, holding = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64)
    void = 0
    sizes: Counter[tuple[int, int]] = Counter()
    for ids, shape in masks:
        found = np.array([ids.get(label, 0) for label in range(count)])
        size = shape[0] * shape[1]
        pixels += found
        images += found > 0
        holding += (found > 0) * size
        void += size - int(found.sum())
        sizes[shape] += 1
    return SplitStats(labels, pixels, void, images, holding, sizes)


def _of_files(split: FileSplit, threads: int) -> Iterator[Counted]:
    """From headers and what the check has counted: a mask that it remembers is not decoded."""
    counts = check_split(split, threads=threads)
    sizes = read_together(range(len(split)), lambda index: image_size(split.masks[index]), None, threads=threads)
    for index, ids in enumerate(counts):
        yield ids, sizes[index]


def _of_scenes(split: Split, threads: int) -> Iterator[Counted]:
    def one(index: int) -> Counted:
        mask = split.read(index)[1]
        return check_ids(mask, split.labels, Path(split.key(index))), (mask.shape[0], mask.shape[1])

    found = read_together(range(len(split)), one, f"counting {split.name}", threads=threads)
    yield from (found[index] for index in range(len(split)))
