"""Count the ids of masks, explain wrong ids, and compute class weights."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.labels import LabelSet
from seenet.data.masks import remap_line

Counted = tuple[dict[int, int], tuple[int, int]]
"""Pixels of each id in a mask, and its height and width."""
Moments = tuple[int, list[int], list[int]]
"""Number of pixels of an image, and of each channel the sum of values and of their squares."""
ChannelStats = tuple[list[float], list[float]]
"""Mean and standard deviation of each channel, 0 to 1."""
NARROW = 2**16
"""Range of ids up to which they are counted without sorting."""
BINARY = "looks like a 0/255 mask; set `decode: remap` with `remap: {0: 0, 255: 1}`"


def full_scale(top: int) -> int:
    """Return the largest value of as many bits as `top` has, at least 8."""
    return int(2 ** max(8, top.bit_length()) - 1)


def count_ids(mask: np.ndarray) -> dict[int, int]:
    """Return the number of pixels of each id in a mask."""
    if mask.dtype == np.uint8:
        counts = np.bincount(mask.ravel())
        return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
    low, high = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
    if high - low < NARROW:
        counts = np.bincount(mask.astype(np.int64).ravel() - low)
        found = np.flatnonzero(counts)
        labels, pixels = found + low, counts[found]
    else:
        labels, pixels = np.unique(mask, return_counts=True)
    return dict(zip(labels.tolist(), pixels.tolist(), strict=True))


def moments_of(image: np.ndarray) -> Moments:
    """Return the moments of the channels of an H x W x C uint8 image."""
    # Pillow counts red, green and blue together, which is faster.
    planes = (
        [image]
        if image.shape[2] == 3
        else [np.ascontiguousarray(plane) for plane in np.moveaxis(image, 2, 0)]
    )
    found = [Image.fromarray(plane).histogram() for plane in planes]
    counts = np.array(found, np.int64).reshape(-1, 256)
    values = np.arange(256)
    squares = (counts @ values**2).tolist()
    return image.shape[0] * image.shape[1], (counts @ values).tolist(), squares


def channel_mean_and_std(moments: Sequence[Moments]) -> ChannelStats:
    """Return mean and standard deviation of each channel over the pixels of all images."""
    # Python's integers until the division: nothing overflows or is lost by cancellation.
    total = sum(count for count, _, _ in moments)
    sums = np.array([one for _, one, _ in moments], object).sum(0)
    squares = np.array([one for _, _, one in moments], object).sum(0)
    means = [value / total / 255 for value in sums]
    return means, [
        math.sqrt((total * square - value**2) / total**2) / 255
        for value, square in zip(sums, squares, strict=True)
    ]


def check_ids(mask: np.ndarray, labels: LabelSet, path: Path) -> dict[int, int]:
    """Return the number of pixels of each id; raise DataError as `refuse_ids` does."""
    counts = count_ids(mask)
    refuse_ids(counts, labels, path)
    return counts


def strange_ids(counts: dict[int, int], labels: LabelSet) -> dict[int, int]:
    """Return the counts of ids that are neither a class nor ignored."""
    known = {*range(labels.num_classes), labels.ignore}
    return {label: pixels for label, pixels in counts.items() if label not in known}


def refuse_ids(counts: dict[int, int], labels: LabelSet, path: Path) -> None:
    """Raise DataError, with the likely cause, if a mask has ids that are no class nor ignored."""
    wrong = strange_ids(counts, labels)
    if not wrong:
        return
    some = ", ".join(f"{label} ({pixels} pixels)" for label, pixels in list(wrong.items())[:6])
    kind, fix = likely_cause(set(counts), labels)
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        fix = "JPEG blurs ids; save masks as PNG"
        if labels.name == "folder" and labels.num_classes == 2:
            fix = "JPEG blurs ids; set `decode: threshold`"
    raise DataError(
        f"{path}: ids {some}{', ...' if len(wrong) > 6 else ''} are neither one of "
        f"{labels.num_classes} classes (0 to {labels.num_classes - 1}) "
        f"nor ignored ({labels.ignore})",
        fix=fix,
        kind=kind,
        pixels=sum(wrong.values()),
    )


def likely_cause(ids: set[int], labels: LabelSet) -> tuple[str, str]:
    """Guess the kind of error (`mask-kind`, `ids`) and its fix from the ids in masks."""
    count = labels.num_classes
    if labels.name == "cityscapes19" and ids <= {*range(34), 255}:
        return "mask-kind", "looks like labelIds; set data.ids=labelIds"
    if labels.name != "folder":
        return "ids", (
            f"masks of {labels.name} hold no others; "
            "another data set's, or masks of your own (data.kind=folder)?"
        )
    if count == 19 and ids <= {*range(34), 255}:
        return "mask-kind", (
            "looks like Cityscapes' labelIds; use data.kind=cityscapes, or set `decode: remap`"
        )
    if ids <= {0, 255}:
        return "mask-kind", BINARY
    if max(ids) == count != labels.ignore:
        return "ids", (
            f"looks like ids counted from 1, or void as {count}; "
            f"set `decode: remap`, or `ignore: {count}`"
        )
    own = sorted(label for label in ids if label >= 0 and label != labels.ignore)
    if len(own) == count and own != list(range(count)):
        table = dict(zip(own, range(count), strict=True))
        table |= {label: labels.ignore for label in ids if label not in table}
        return "ids", f"looks like other ids; set `decode: remap` and `{remap_line(table)}`"
    if own == list(range(count)):
        table = {label: label if label in own else labels.ignore for label in ids}
        return "ids", (
            f"looks like void by another id; set `decode: remap` and `{remap_line(table)}`"
        )
    if 255 in ids and labels.ignore != 255:
        return "ids", "looks like void as 255; set `ignore: 255`"
    return "ids", "add the classes, set `ignore`, or map ids with `decode: remap`"


def no_class(masks: int, labels: LabelSet) -> str:
    """Return the message for `masks` masks whose pixels are all ignored."""
    return f"no pixel of {masks} masks has a class, all are {labels.ignore}; is `ignore` right?"


@dataclass(frozen=True)
class SplitStats:
    """Counts over the masks of a split.

    Attributes:
        labels: label set with K classes.
        pixels: K numbers of pixels of each class.
        void: pixels of no class.
        images: K numbers of images that hold each class.
        holding_pixels: K numbers of all pixels, void too, of those images.
        sizes: number of masks of each (height, width).
    """

    labels: LabelSet
    pixels: np.ndarray
    void: int
    images: np.ndarray
    holding_pixels: np.ndarray
    sizes: Counter[tuple[int, int]]

    def median_frequency(self) -> list[float]:
        """Return the class weights median(f) / f_k; 0 for a class without pixels.

        f_k = pixels of k / pixels of the images that hold k (Eigen and Fergus, ICCV 2015).

        Raises:
            DataError: no pixel has a class.
        """
        present = self.pixels > 0
        if not present.any():
            raise DataError(no_class(sum(self.sizes.values()), self.labels))
        frequency = np.zeros(len(self.pixels))
        np.divide(self.pixels, self.holding_pixels, out=frequency, where=present)
        middle = median(frequency[present].tolist())
        return [float(middle / value) if value else 0.0 for value in frequency]

    def table(self) -> str:
        """Format a line per class (share of pixels, images, weight), then sizes and void."""
        total = max(1, int(self.pixels.sum()))
        lines = [f"{'class':<16} {'% of pixels':>11} {'pictures':>9} {'weight':>7}"]
        rows = zip(
            self.labels.classes, self.pixels, self.images, self.median_frequency(), strict=True
        )
        for name, pixels, images, weight in rows:
            lines.append(f"{name:<16} {100 * pixels / total:>11.3f} {images:>9} {weight:>7.3f}")
        common = self.sizes.most_common(4)
        sizes = ", ".join(f"{height}x{width} ({count})" for (height, width), count in common)
        void = 100 * self.void / (total + self.void)
        return "\n".join([*lines, f"sizes: {sizes}", f"void: {void:.2f} % of all pixels"])


def gather(labels: LabelSet, masks: Iterable[Counted]) -> SplitStats:
    """Sum the counts of single masks; ids of no class count as void."""
    count = labels.num_classes
    pixels, images, holding = np.zeros((3, count), np.int64)
    void = 0
    sizes: Counter[tuple[int, int]] = Counter()
    for ids, (height, width) in masks:
        found = np.array([ids.get(label, 0) for label in range(count)])
        pixels += found
        images += found > 0
        holding += (found > 0) * height * width
        void += height * width - int(found.sum())
        sizes[height, width] += 1
    return SplitStats(labels, pixels, void, images, holding, sizes)
