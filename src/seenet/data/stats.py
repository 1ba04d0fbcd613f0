"""What a split holds: pixels and pictures of each class, sizes, and the class weights that follow."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from seenet.core.labels import LabelSet
from seenet.core.progress import track
from seenet.data.check import check_ids
from seenet.data.split import FileSplit, Split


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
        """median(f) / f_k with f_k = pixels of k / pixels of the pictures that hold k; 0 for a class that is not there."""
        present = self.pixels > 0
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
    """Read every mask once, under a bar. DataError where one cannot be read or holds an id outside the label set."""
    count = split.labels.num_classes
    pixels, images, holding = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64)
    void = 0
    sizes: Counter[tuple[int, int]] = Counter()

    def one(index: int) -> tuple[np.ndarray, int, tuple[int, int]]:
        mask = split.mask(index) if isinstance(split, FileSplit) else split.read(index)[1]
        check_ids(mask, split.labels, split.paths(index)[1] or Path(split.key(index)))
        found = np.bincount(mask[mask != split.labels.ignore].ravel(), minlength=count)
        return found, mask.size, (mask.shape[0], mask.shape[1])

    with ThreadPoolExecutor(threads) as pool:
        for found, size, shape in track(pool.map(one, range(len(split))), f"counting {split.name}", len(split)):
            pixels += found
            images += found > 0
            holding += (found > 0) * size
            void += size - int(found.sum())
            sizes[shape] += 1
    return SplitStats(split.labels, pixels, void, images, holding, sizes)
