"""Choose which files of a folder are the pictures and which are the masks, by what they hold."""

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NoReturn

import numpy as np

from seenet.core.errors import DataError
from seenet.data.check.evidence import Series, series_of, values_of
from seenet.data.check.layout import Layout, find_layouts, merged, split_word, spread
from seenet.data.pairing import normal

Side = Literal["images", "masks"]
SAMPLED = 8
"""Files of each kind that are looked at."""
COMPARED = 3
"""Masks that are compared with those of another candidate."""
CANDIDATES = 24
WORDS = {
    "masks", "mask", "labels", "label", "annotations", "annotation", "gt", "gtfine", "semantic",
    "segmentation", "segmentationclass", "labelids", "manual", "ann_dir", "annot",
}  # fmt: skip
"""Common words for masks, which decide between masks that say the same."""
RANKS = {
    "ids": 0, "palette": 0, "colours": 1, "alpha": 1, "noise": 2, "instances": 4,
    "field of view": 5, "constant": 6,
}  # fmt: skip
"""Kinds of masks, those that are best to learn from first."""


@dataclass(frozen=True)
class Choice:
    """Pictures and masks of a data set.

    Attributes:
        layout: which files they are.
        pictures, masks: what some of them hold.
        passed: a line for every other candidate, with the reason.
    """

    layout: Layout
    pictures: Series
    masks: Series
    passed: tuple[str, ...]


def name_of(layout: Layout, side: Side) -> str:
    """Return the name of a candidate's pictures or masks: folder, and pattern where names vary."""
    folder = layout.images if side == "images" else layout.masks
    pattern = layout.rule.image if side == "images" else layout.rule.mask
    if layout.same_name:
        return folder
    return pattern if folder == "." else f"{folder}/{pattern}"


def init_command(folder: Path, *options: str) -> str:
    """Return `seenet data init FOLDER OPTION...` for a message, as a shell takes it."""
    return f"`seenet data init {shlex.join([str(folder), *options])}`"


class Undecided(DataError):
    """More than one reading of a data set remains.

    Args:
        found: what was found.
        folder: the data set.
        option: option of `seenet data init` that decides: `masks` or `exif`.
        choices: each of its values, and what is then read.
    """

    def __init__(self, found: str, folder: Path, option: str, choices: dict[str, str]) -> None:
        self.found, self.option, self.choices = found, option, choices
        commands = [
            f"{init_command(folder, f'--{option}', value)} ({what})"
            for value, what in choices.items()
        ]
        super().__init__(f"{found}; choose: {' or '.join(commands)}")


def choose(
    folder: Path, names: Sequence[str], *, images: str | None = None, masks: str | None = None
) -> Choice:
    """Choose the pictures and masks of a folder.

    Args:
        folder: the data set.
        names: its files, relative.
        images, masks: folder or name (`name_of`) that the user chose; None: any.

    Raises:
        DataError: no two kinds of files are pictures with masks, with what was found.
        Undecided: more than one kind of masks remains.
    """
    layouts = [
        layout
        for layout in merged(find_layouts(names))
        if _is(images, layout, "images") and _is(masks, layout, "masks")
    ][:CANDIDATES]

    looked: dict[tuple[str, ...], Series] = {}

    def look(side: Side, number: int) -> Series:
        files = [pair[side == "masks"] for pair in layouts[number].pairs]
        chosen = tuple(sorted(spread(files, SAMPLED)))
        if chosen not in looked:  # many rules name the same files
            looked[chosen] = series_of([folder / name for name in chosen])
        return looked[chosen]

    def fits(number: int) -> bool:
        ours, theirs = look("images", number), look("masks", number)
        if theirs.kind in ("damaged", "picture") or ours.kind == "damaged":
            return False
        return ours.entropy > theirs.entropy + 0.5

    good = [number for number in range(len(layouts)) if fits(number)]
    if not good:
        _refuse(folder, names, layouts, look)
    most = max(len(layouts[number].pairs) for number in good)
    good = [number for number in good if len(layouts[number].pairs) > 0.6 * most]

    def worth(number: int) -> tuple[bool, float, int]:
        folder = layouts[number].images
        return split_word(folder) != "test", look("images", number).entropy, -len(folder)

    pictures = {picture for picture, _ in layouts[max(good, key=worth)].pairs}
    good = [
        number
        for number in good
        if 2 * len(pictures & {picture for picture, _ in layouts[number].pairs}) > len(pictures)
    ]
    good.sort(key=lambda number: _order(layouts[number], look("masks", number)))
    best, *others = good
    rivals, passed = [], []
    for number in others:
        name = name_of(layouts[number], "masks")
        relation = _compare(folder, layouts[best], layouts[number])
        kind, ours = look("masks", number).kind, look("masks", best).kind
        what = look("masks", number).describe()
        if RANKS[kind] > RANKS[ours] or relation in ("same", "finer"):
            reason = {"same": ", the same areas", "finer": ", coarser"}.get(relation, f", {kind}")
            passed.append(f"{name}: {what}{reason}")
        elif _known_word(layouts[best]) and not _known_word(layouts[number]):
            passed.append(f"{name}: {what}, other areas, and its name says less")
        else:
            rivals.append(number)
    if rivals:
        choices = {
            name_of(layouts[number], "masks"): look("masks", number).describe()
            for number in [best, *rivals]
        }
        raise Undecided(f"{folder}: masks of several kinds that differ", folder, "masks", choices)
    return Choice(layouts[best], look("images", best), look("masks", best), tuple(passed))


def _is(chosen: str | None, layout: Layout, side: Side) -> bool:
    folder = layout.images if side == "images" else layout.masks
    if chosen is None:
        return True
    return chosen.rstrip("/") in (folder, name_of(layout, side), folder.split("/")[0])


def _known_word(layout: Layout) -> bool:
    """Return whether the name of masks has a word for them."""
    name = normal(name_of(layout, "masks"))
    parts = [part for part in PurePosixPath(name).parts if "{" not in part]
    affixes = name.rpartition("/")[2].replace("{id}", "").rpartition(".")[0]
    return bool({*parts, affixes.strip("_- ")} & WORDS)


def _order(layout: Layout, masks: Series) -> tuple[int, bool, int, str]:
    name = name_of(layout, "masks")
    return RANKS[masks.kind], not _known_word(layout), len(name), name


def _compare(folder: Path, one: Layout, other: Layout) -> Literal["same", "finer", "coarser", ""]:
    """Compare how two candidates cut the same pictures into areas.

    Returns:
        `same`; `finer` if each area of `one` lies in one of `other`, `coarser` the other way round;
        "" if neither, or if they cannot be read.
    """
    theirs = dict(other.pairs)
    both = [(mask, theirs[picture]) for picture, mask in one.pairs if picture in theirs]
    ways: list[set[tuple[int, int]]] = []
    try:
        for first, second in both[:: max(1, len(both) // COMPARED)]:
            ours, its = values_of(folder / first), values_of(folder / second)
            if ours.shape != its.shape:
                return ""
            joined = ours.astype(np.int64) << 32 | its.astype(np.int64) & 0xFFFFFFFF
            joint = np.unique(joined)
            ways.append({(value >> 32, value & 0xFFFFFFFF) for value in joint.tolist()})
    except DataError:
        return ""
    every = set().union(*ways)
    forward = len({a for a, _ in every}) == len(every)
    backward = len({b for _, b in every}) == len(every)
    if not every or not (forward or backward):
        return ""
    return "same" if forward and backward else "finer" if forward else "coarser"


def _refuse(
    folder: Path,
    names: Sequence[str],
    layouts: Sequence[Layout],
    look: Callable[[Side, int], Series],
) -> NoReturn:
    """Raise DataError with what was found instead of pictures and masks."""
    for number in range(len(layouts)):
        for series in (look("images", number), look("masks", number)):
            if series.damaged and not series.files:
                raise DataError("; ".join(map(str, series.damaged)))
    every = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    found = f"{folder}: found {inventory(sorted(every)[:100_000])}"
    if layouts and 3 * len(layouts[0].pairs) > len(names):
        layout = layouts[0]
        raise DataError(
            f"{found}; {name_of(layout, 'images')} ({look('images', 0).describe()}) and "
            f"{name_of(layout, 'masks')} ({look('masks', 0).describe()}) have matching names, but "
            "are not pictures with masks; expected masks of few values, one for each class"
        )
    raise DataError(
        f"{found}, but no pictures with masks of matching names; expected such as images/a.jpg "
        "and masks/a.png, or a.jpg and a_mask.png"
    )


def inventory(names: Sequence[str]) -> str:
    """Return in words how many files of each kind lie in each folder, the most first."""
    kinds = Counter(
        (str(PurePosixPath(name).parent), PurePosixPath(name).suffix or "no suffix")
        for name in names
    )
    parts = [
        f"{count} {suffix} in {'the folder itself' if where == '.' else where}"
        for (where, suffix), count in kinds.most_common(5)
    ]
    return ", ".join(parts) + (", ..." if len(kinds) > 5 else "") if parts else "no files"
