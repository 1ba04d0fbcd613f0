"""Judge whether labels make sense as a whole: what single files cannot show."""

from collections.abc import Iterator, Sequence

from seenet.core.errors import DataError
from seenet.core.images import DEEP
from seenet.data.check.scan import Examined
from seenet.data.check.stats import SplitStats, full_scale
from seenet.data.split import Split

MANY_IDS = 64
TOLD, MET = 20, 0.6
"""Pairs whose edges are compared, at least, and the share that meets up to which a warning is
given: masks of other pictures meet in a half.
"""
INEXACT = 0.01
"""Share of pixels that went to the nearest class above which a warning is given."""


def implausible(split: Split, pairs: Sequence[Examined], stats: SplitStats) -> Iterator[DataError]:
    """Yield the errors of a split as a whole."""
    present = int((stats.pixels > 0).sum())
    if present == 1 and len(stats.pixels) > 1:
        name = stats.labels.classes[int(stats.pixels.argmax())]
        yield DataError(
            f"{split.name}: {name} is the only class in {len(pairs)} masks, so there is nothing to "
            "learn",
            fix="look at the masks; is another folder, or another `decode`, meant?",
            kind="implausible",
        )
    highest = [pair.highest for pair in pairs if pair.highest is not None]
    if highest and len(highest) == len(pairs) and max(highest) < DEEP:
        yield DataError(
            f"{split.name}: 16-bit pictures without a value above {max(highest)}, which would be "
            "nearly black",
            fix=f"set `value_range: [0, {full_scale(max(highest))}]`",
            kind="implausible",
        )


def doubts(split: Split, pairs: Sequence[Examined], stats: SplitStats) -> Iterator[str]:
    """Yield warnings about a split as a whole, which are no errors."""
    total = int(stats.pixels.sum()) + stats.void
    if stats.void > total / 2:
        yield f"{stats.void / total:.1%} of all pixels are ignored: is `ignore` right?"
    present = int((stats.pixels > 0).sum())
    if present > MANY_IDS > len(pairs):
        yield f"{present} classes in {len(pairs)} masks: do they count objects?"
    told = [pair.meets for pair in pairs if pair.meets is not None]
    if len(told) >= TOLD and sum(told) <= MET * len(told):
        yield (
            f"edges of masks meet those of the pictures in {sum(told)} of {len(told)} pairs, no "
            "more than mirrored masks do: do masks and pictures belong together?"
        )
    inexact = sum(pair.inexact for pair in pairs)
    if inexact > INEXACT * total:
        yield f"{inexact / total:.1%} of all pixels were not exact and went to the nearest class"


def untaught(train: SplitStats, val: SplitStats) -> str:
    """Return a warning about classes that only validation has; empty if there are none."""
    missing = [
        name
        for name, ours, theirs in zip(val.labels.classes, train.pixels, val.pixels, strict=True)
        if theirs and not ours
    ]
    return f"only validation has {', '.join(missing)}: nothing teaches them" if missing else ""
