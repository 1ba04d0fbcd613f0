"""Divide the pictures of a data set into splits: exact shares, by class and by group."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from seenet.core.files import digest

_LAST_PART = re.compile(r"[^\W_]+$")
LEAST_GROUPS = 4
"""Groups that are needed to divide by them."""


def group_names(names: Sequence[str]) -> dict[str, str]:
    """Return the group of each picture: pictures of one scene stay in one split.

    Names without their last part are groups, so that `drive_0001_000017` belongs to `drive_0001`.
    With fewer than four groups, or one of them over a third of all, each picture is its own.
    """
    groups = {name: _LAST_PART.sub("", name).rstrip("_- .") or name for name in names}
    sizes: dict[str, int] = defaultdict(int)
    for group in groups.values():
        sizes[group] += 1
    if len(sizes) < LEAST_GROUPS or max(sizes.values()) > len(names) / 3:
        return {name: name for name in names}
    return groups


def divide(
    names: Sequence[str],
    classes: Mapping[str, set[int]],
    shares: Mapping[str, float],
    seed: int = 0,
) -> dict[str, list[str]]:
    """Draw the pictures of each split.

    Classes are spread as the shares are: the next group is always one that holds what the split
    lacks most. The draw depends on the names and the seed alone.

    Args:
        names: all pictures.
        classes: ids in the mask of each picture, as far as known.
        shares: share of each split; the rest belongs to none of them.
        seed: another seed is another draw.

    Returns:
        Names of each split, in the order of `names`. The number is the share of all, rounded, as
        far as whole groups allow; at least 1.
    """
    groups = group_names(names)
    members: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names, key=lambda name: digest(str(seed), name)):
        members[groups[name]].append(name)
    ids = sorted({label for found in classes.values() for label in found})
    held = {
        group: np.array(
            [sum(label in classes.get(name, ()) for name in inside) for label in ids], float
        )
        for group, inside in members.items()
    }
    total = sum(held.values(), np.zeros(len(ids)))
    left = list(members)
    result = {}
    for split, share in shares.items():
        wanted = max(1, round(share * len(names)))
        lacking = total * share
        taken: list[str] = []
        while len(taken) < wanted and left:
            room = wanted - len(taken)
            fitting = [group for group in left if len(members[group]) <= room]
            if not fitting and taken:
                break
            best = max(
                fitting or left,
                key=lambda group: _gain(held[group], lacking, len(members[group])),
            )
            left.remove(best)
            taken += members[best]
            lacking = lacking - held[best]
        chosen = set(taken)
        result[split] = [name for name in names if name in chosen]
    return result


def _gain(held: np.ndarray, lacking: np.ndarray, size: int) -> float:
    """Return how much a group brings of what is lacking, rare classes first, for each picture."""
    scale = np.maximum(np.abs(lacking), 1)
    before = ((lacking / scale) ** 2).sum()
    after = (((lacking - held) / scale) ** 2).sum()
    return float(before - after) / size
