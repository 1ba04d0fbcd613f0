"""Measure what image files hold: pictures, ids, colours, noise, or nothing of use."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from seenet.core.arrays import read_array
from seenet.core.errors import DataError
from seenet.core.image_files import safe_image_open
from seenet.core.images import orientation, read_ids, whole_numbers
from seenet.data.check.bands import bands_of
from seenet.data.check.stats import count_ids
from seenet.data.masks import pack, packed

MANY = 2**15
"""Distinct values of a file above which they are not counted one by one."""
FEW = 64
"""Colours of a file up to which they are compared exactly: there is no noise."""
VARIED = 0.25
"""Share of the eight most frequent colours below which a file is a picture."""
BAND = 16
"""Rows of a band; the surroundings of pixels are looked at in bands of large files."""
BAND_PIXELS = 200_000
"""Pixels of all bands of a file, at most about."""
NEAR_GREY, NEAR_COLOUR = 4, 12
"""Differences up to which JPEG changes areas of one value."""
MOST_GROUPS = 200
"""Groups of near values above which files are no noisy masks."""
SINGLE = ("1", "L", "P", "I", "F", "I;16", "I;16B", "I;16L", "I;16N", "LA", "PA", "array")
"""Modes of one value a pixel: Pillow's, and `array` for .npy."""


@dataclass(frozen=True)
class FileEvidence:
    """Measurements of one file.

    Attributes:
        path: the file.
        shape: height and width as stored.
        mode: Pillow's mode, `array`, or `bands` for several that are no colours of 8 bits.
        orientation: EXIF orientation.
        values: pixels of each value, or of each packed colour; empty above `MANY`.
        solid: of these, pixels that have neither another value above, below, left nor right; in
            bands of a large file.
        looked_at: pixels of each value in these bands.
        top: share of the eight most frequent values.
        entropy: bits of a value's information.
        palette: colour of each used index of a palette.
        alpha: pixels of each alpha value, if colours are the same everywhere.
        thumbnail: 64 x 64 values, or packed colours.
    """

    path: Path
    shape: tuple[int, int]
    mode: str
    orientation: int
    values: dict[int, int]
    solid: dict[int, int]
    looked_at: dict[int, int]
    top: float
    entropy: float
    palette: dict[int, tuple[int, ...]] = field(default_factory=dict)
    alpha: dict[int, int] = field(default_factory=dict)
    thumbnail: np.ndarray = field(default_factory=lambda: np.zeros((64, 64)), compare=False)

    @property
    def single(self) -> bool:
        """Whether a pixel has one value, not a colour."""
        return self.mode in SINGLE

    @property
    def grey(self) -> bool:
        """Whether all colours are grey."""
        return bool(self.values) and all(
            value >> 16 == value & 255 == value >> 8 & 255 for value in self.values
        )


def values_of(path: Path) -> np.ndarray:
    """Read the H x W values of a mask as stored: ids, palette indices or packed colours.

    Raises:
        DataError: it cannot be read.
    """
    if path.suffix.lower() != ".npy":
        with safe_image_open(path) as image:
            if image.mode not in SINGLE:
                return packed(np.asarray(image.convert("RGB")))
    return read_ids(path, upright=False)


def look_at(path: Path) -> FileEvidence:
    """Measure a file.

    Raises:
        DataError: it cannot be read.
    """
    bands = bands_of(path)
    if bands and bands.values.shape[2] > 1:
        return replace(_measure(path, packed(_three(bands.values)), "bands", 1), shape=bands.shape)
    if path.suffix.lower() == ".npy":
        array = read_array(path)
        if array.ndim == 2:
            return _measure(path, _ids_or_values(path, array), "array", 1)
        return _measure(path, packed(_three(array)), "RGB", 1)
    with safe_image_open(path) as image:
        turn = orientation(image)
        if image.mode in SINGLE:
            palette: dict[int, tuple[int, ...]] = {}
            if image.mode in {"P", "PA"} and image.palette:
                colours = image.getpalette("RGB") or []
                palette = {
                    index: tuple(colours[3 * index : 3 * index + 3])
                    for index in range(len(colours) // 3)
                }
            values = (
                np.asarray(image) if image.mode in {"1", "L", "P"} else _ids_or_values(path, image)
            )
            return _measure(path, values, image.mode, turn, palette=palette)
        alpha: dict[int, int] = {}
        if image.mode in {"RGBA", "RGBa"}:
            counts = image.getchannel("A").histogram()
            alpha = {value: count for value, count in enumerate(counts) if count}
        plain = image if image.mode == "RGB" else image.convert("RGB")
        found: Any = plain.getcolors(MANY) or []
        counted = {pack(colour): count for count, colour in found}
        return _measure(path, plain, image.mode, turn, counted=counted, alpha=alpha)


def _three(array: np.ndarray) -> np.ndarray:
    """Return three bands of an array, as far as they can be told apart in 8 bits."""
    bands = array[..., :3] if array.shape[2] >= 3 else np.repeat(array[..., :1], 3, 2)
    if bands.dtype == np.uint8:
        return bands
    bands = np.nan_to_num(bands.astype(np.float64), posinf=0, neginf=0)
    low, high = float(bands.min()), float(bands.max())
    scaled: np.ndarray = ((bands - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
    return scaled


def _ids_or_values(path: Path, image: Image.Image | np.ndarray) -> np.ndarray:
    """Return whole numbers as ids, and other values in many steps: they are none."""
    try:
        if isinstance(image, np.ndarray):
            return whole_numbers(image, path)
        return read_ids(path, upright=False)
    except DataError:
        values = np.nan_to_num(np.asarray(image, np.float64))
        values = values if values.ndim == 2 else values[..., 0]
        low, high = values.min(), values.max()
        return np.asarray((values - low) / max(high - low, 1e-9) * MANY).astype(np.int32)


def _measure(
    path: Path,
    content: Any,
    mode: str,
    turn: int,
    *,
    counted: dict[int, int] | None = None,
    palette: dict[int, tuple[int, ...]] | None = None,
    alpha: dict[int, int] | None = None,
) -> FileEvidence:
    """Count values, and those whose neighbours are like them; an image comes with its counts."""
    is_image = isinstance(content, Image.Image)
    height, width = content.size[::-1] if is_image else content.shape[:2]
    step = max(1, round(height * width / BAND_PIXELS))
    starts = range(0, max(1, height - BAND + 1), BAND * step)
    spans = [(start, start + BAND) for start in starts] if step > 1 else [(0, height)]
    if is_image:  # only what is looked at becomes an array
        bands = [np.asarray(content.crop((0, top, width, bottom))) for top, bottom in spans]
        small = np.asarray(content.resize((64, 64), Image.Resampling.NEAREST))
    else:
        bands = [content[top:bottom] for top, bottom in spans]
        rows, columns = (np.arange(64) * side // 64 for side in (height, width))
        small = content[rows][:, columns]
    if counted is None:
        counted = _counts(content)
    if counted:
        frequencies = np.array(sorted(counted.values(), reverse=True), np.float64)
    else:
        first = packed(bands[0]) if bands[0].ndim == 3 else bands[0]
        frequencies = np.sort(np.unique(first, return_counts=True)[1])[::-1].astype(np.float64)
    shares = frequencies / max(1.0, frequencies.sum())
    top = float(shares[:8].sum())
    solid: Counter[int] = Counter()
    seen: Counter[int] = Counter()
    for band in bands if counted and (small.ndim == 2 or top > VARIED) else []:
        values = packed(band) if band.ndim == 3 else band
        like = band if len(counted) > FEW else values
        inner = like[1:-1, 1:-1]
        same = _alike(inner, like[:-2, 1:-1]) & _alike(inner, like[2:, 1:-1])
        same &= _alike(inner, like[1:-1, :-2]) & _alike(inner, like[1:-1, 2:])
        seen.update(_counts(values))
        solid.update(_counts(values[1:-1, 1:-1][same]))
    used = set(counted)
    return FileEvidence(
        path, (height, width), mode, turn, counted, dict(solid), dict(seen),
        top, float(-(shares * np.log2(shares)).sum()) if len(shares) else 0.0,
        {index: colour for index, colour in (palette or {}).items() if index in used},
        (alpha or {}) if len(counted) == 1 else {}, packed(small) if small.ndim == 3 else small,
    )  # fmt: skip


def _alike(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return where two values are equal, or two colours nearly so: JPEG changes each a little."""
    if ours.ndim == 2:
        return np.asarray(ours == theirs)
    near = np.maximum(ours, theirs) - np.minimum(ours, theirs) <= NEAR_COLOUR // 2
    every: np.ndarray = near[..., 0] & near[..., 1] & near[..., 2]
    return every


def _counts(values: np.ndarray) -> dict[int, int]:
    """Return the pixels of each value; empty above `MANY` values."""
    counts = count_ids(values)
    return counts if len(counts) <= MANY else {}


@dataclass(frozen=True)
class Series:
    """Evidence of files that play one part in a data set: pictures, or masks of one kind."""

    files: tuple[FileEvidence, ...]
    damaged: tuple[DataError, ...] = ()

    @cached_property
    def entropy(self) -> float:
        """Median entropy of the files, bits."""
        return median(file.entropy for file in self.files) if self.files else math.inf

    @cached_property
    def values(self) -> Counter[int]:
        """Pixels of each value over all files; empty if a file has too many."""
        total: Counter[int] = Counter()
        for file in self.files:
            total.update(file.values)
        return Counter() if any(not file.values for file in self.files) else total

    @cached_property
    def solid_share(self) -> float:
        """Share of pixels whose four neighbours have the same value."""
        seen = sum(sum(file.looked_at.values()) for file in self.files)
        return sum(sum(file.solid.values()) for file in self.files) / max(1, seen)

    @property
    def single(self) -> bool:
        return all(file.single for file in self.files)

    @cached_property
    def constant(self) -> bool:
        """Whether every file holds one value, and all the same."""
        return len(self.values) == 1

    @cached_property
    def same(self) -> bool:
        """Whether all files (of three or more) hold nearly the same, as a field of view does."""
        if len(self.files) < 3 or not self.values or self.constant:
            return False
        shapes = {file.shape for file in self.files}
        if len(shapes) > 1:
            return False
        arrays = [file.thumbnail for file in self.files[:4]]
        return all(float((array != arrays[0]).mean()) < 0.01 for array in arrays[1:])

    @cached_property
    def noise(self) -> list[int] | None:
        """Values that noisy masks stand for, as `modes_with_noise`."""
        return modes_with_noise(self)

    @cached_property
    def kind(self) -> str:
        """Kind of the files: `damaged`, `constant`, `alpha`, `picture`, `field of view`, `noise`,
        `instances`, `ids`, `colours` or `palette`.
        """
        if not self.files:
            return "damaged"
        if any(file.mode == "bands" for file in self.files):
            return "picture"
        if self.constant:
            return "alpha" if any(len(file.alpha) > 1 for file in self.files) else "constant"
        top = median(file.top for file in self.files)
        few = median(len(file.values) or MANY for file in self.files)
        regions = self.single and few < MANY and self.solid_share > 0.8
        varied = not self.single and top <= VARIED
        if varied or (top < 0.6 and not regions and self.noise is None):
            return "picture"
        if self.same:
            return "field of view"
        if any(file.mode == "P" for file in self.files):
            return "palette"
        if self.noise is not None:
            return "noise"
        if self.single and looks_like_instances(self):
            return "instances"
        return "ids" if self.single else "colours"

    def describe(self) -> str:
        """Return in words what the files hold, as `grey, 3 values (0, 1, 2)`."""
        if not self.files:
            return str(self.damaged[0]) if self.damaged else "nothing"
        mode = Counter(file.mode for file in self.files).most_common(1)[0][0]
        names = {"L": "grey", "P": "palette", "array": "arrays", "1": "1 bit"}
        if not self.values:
            return f"{names.get(mode, mode)}, over {MANY} values"
        count = len(self.values)
        what = "values" if self.single else "colours"
        shown = ""
        if self.single and count <= 8:
            shown = f" ({', '.join(map(str, sorted(self.values)))})"
        return f"{names.get(mode, mode)}, {count} {what}{shown}"


def series_of(paths: Sequence[Path]) -> Series:
    """Measure files, and keep the errors of those that cannot be read."""
    files, damaged = [], []
    for path in paths:
        try:
            files.append(look_at(path))
        except DataError as error:
            damaged.append(error)
    return Series(tuple(files), tuple(damaged))


def modes_with_noise(series: Series) -> list[int] | None:
    """Return the values that noisy masks stand for; None if the values are no noise.

    Noise (JPEG, blurred or resized masks) is many values that lie between a few others and never
    fill an area. Colours are compared by each channel.
    """
    counts = series.values
    if len(counts) <= 8:
        return None
    seen: Counter[int] = Counter()
    solid: Counter[int] = Counter()
    for file in series.files:
        seen.update(file.looked_at)
        solid.update(file.solid)
    total = sum(seen.values())
    table = np.array([(value, pixels, solid[value]) for value, pixels in seen.most_common()])
    modes: list[int] = []
    groups = 0
    while len(table):  # the most frequent value first; what is near to it is its noise
        near = _distances(table[:, 0], int(table[0, 0]), single=series.single) <= 16
        pixels, inside = table[near, 1].sum(), table[near, 2].sum()
        if pixels > total / 2000 and inside > pixels / 4:
            modes.append(int(table[0, 0]))
        table = table[~near]
        groups += 1
        if groups > MOST_GROUPS or (groups > 32 and 2 * table[:, 1].sum() > total):
            return None
    others = len(counts) - len(modes)
    reach = NEAR_GREY if series.single else NEAR_COLOUR
    values, pixels = np.array(list(counts.items())).T
    nearest = np.min(
        [_distances(values, mode, single=series.single) for mode in modes or [0]], axis=0
    )
    away = int(pixels[nearest > reach].sum())
    if not 2 <= len(modes) <= 32 or others < max(6, len(modes)):
        return None
    if away > 0.35 * sum(counts.values()):
        return None
    return sorted(modes)


def inexact_share(series: Series) -> float:
    """Return the share of pixels of noisy masks that are none of the values they stand for."""
    if series.noise is None:
        return 0.0
    total = sum(series.values.values())
    return 1 - sum(series.values[mode] for mode in series.noise) / total


def _distances(values: np.ndarray, other: int, *, single: bool) -> np.ndarray:
    """Return the differences of values to another, of packed colours the largest of a channel."""
    if single:
        difference: np.ndarray = np.abs(values - other)
        return difference
    channels = [np.abs((values >> shift & 255) - (other >> shift & 255)) for shift in (0, 8, 16)]
    largest: np.ndarray = np.max(channels, axis=0)
    return largest


def looks_like_instances(series: Series) -> bool:
    """Return whether ids count objects: more than 64, more than files, without gaps from 0 or 1."""
    ids = len(series.values)
    if ids <= 64 or ids <= len(series.files):
        return False
    dense = [
        len(file.values) >= 0.9 * (max(file.values) - min(file.values) + 1) for file in series.files
    ]
    return sum(dense) > len(dense) / 2
