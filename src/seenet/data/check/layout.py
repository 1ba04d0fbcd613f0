"""Find which files of a folder may be pictures with their masks, by their names alone.

Every two files whose names share a part give a rule, such as `{split}/images/{id}.jpg ->
{split}/masks/{id}.png`. The rules that hold for most files are the candidates.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TypeVar

from seenet.data.pairing import (
    ANY_SUFFIX,
    SAME_NAME,
    SPLIT_WORDS,
    PairRule,
    normal,
    without_suffix,
)

T = TypeVar("T")

SAMPLED = 48
"""Files from which rules are made."""
TESTED = 60
"""Rules that are tried on all files, the most frequent ones."""
TRIED = 600
"""Files on which rules are tried."""
NEIGHBOURS = 80
"""Files that share a part of a name with another, at most, of which rules are made."""
FOLDER_WORDS = SPLIT_WORDS | {"dev": "val"}
"""Words for the splits in names of folders."""
_TOKEN = re.compile(r"\d+|[^\W\d_]+|[\W_]")
_SPLIT = re.compile(
    r"(?<![a-z])(training|train|validation|valid|val|testing|test|dev)"
    r"(?=$|[^a-z]|annot|labels?$|masks?$|images?$)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Layout:
    """A rule, and the files that it pairs.

    Attributes:
        images, masks: folders that the patterns are relative to, "." for the whole.
        rule: the rule.
        pairs: (picture, mask) of each pair, relative to the whole folder.
    """

    images: str
    masks: str
    rule: PairRule
    pairs: tuple[tuple[str, str], ...]

    @property
    def same_name(self) -> bool:
        """Whether a mask is named as its picture, but for the suffix."""
        return self.rule == SAME_NAME


def split_word(name: str) -> str | None:
    """Return `train`, `val` or `test` if the name of a folder says so, else None."""
    found = _SPLIT.search(name)
    return FOLDER_WORDS[found[1].lower()] if found else None


def split_of(path: str) -> tuple[str, str] | None:
    """Return split and folder of a file, by the first folder on its path that names a split."""
    parts = PurePosixPath(path).parts[:-1]
    for place, part in enumerate(parts):
        if word := split_word(part):
            return word, "/".join(parts[: place + 1])
    return None


def find_layouts(names: Sequence[str]) -> list[Layout]:
    """Find the rules that pair many of the files, those that pair most first.

    Args:
        names: paths relative to one folder, with slashes.
    """
    known = {normal(name): name for name in names}
    index: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for part in dict.fromkeys(_parts(name)):
            index[part].append(name)
    votes = Counter(
        rule
        for name in spread(names, SAMPLED)
        for rule in {_rule(name, other) for other in _neighbours(name, index)}
        if rule is not None
    )
    tried = spread(names, TRIED)
    found: dict[frozenset[tuple[str, str]], tuple[PairRule, int]] = {}
    for rule, _ in votes.most_common(TESTED):
        pairs = _paired(rule, tried, known)
        plain = -len(str(rule))
        if pairs and (key := frozenset(pairs)) and plain > found.get(key, (rule, -1000))[1]:
            found[key] = rule, plain
    most = max(map(len, found), default=0)
    layouts = []
    for key, (rule, _) in found.items():
        if len(key) >= max(1, most / 20):
            pairs = _paired(rule, names, known)
            layouts.append(_relative(rule, pairs))
    return sorted(layouts, key=lambda one: (-len(one.pairs), str(one.rule)))


def spread(names: Sequence[T], count: int) -> Sequence[T]:
    """Return every so manyth of some names, at most `count`."""
    return names[:: max(1, -(-len(names) // count))]


def _neighbours(name: str, index: dict[str, list[str]]) -> list[str]:
    """Return files that share the stem or the rarest part of it, by an index of parts."""
    stem, *parts = _parts(name)
    rarest = min((index[part] for part in parts if len(index[part]) > 1), key=len, default=[])
    found = [*index[stem][:NEIGHBOURS], *rarest[:NEIGHBOURS]]
    return [other for other in found if other != name]


def _parts(name: str) -> list[str]:
    """Return the stem of a file's name, then the numbers and words in it."""
    stem = normal(without_suffix(PurePosixPath(name).name))
    return [stem, *(part for part in _TOKEN.findall(stem) if part[0].isalnum() and part != stem)]


def _rule(picture: str, mask: str) -> PairRule | None:
    """Return the rule by which `mask` would be the mask of `picture`; None if there is none."""
    ours, theirs = PurePosixPath(picture), PurePosixPath(mask)
    names = _affixes(ours.name, theirs.name)
    if names is None:
        return None
    folders = _folders(ours.parts[:-1], theirs.parts[:-1])
    if folders is None:
        return None
    left, right = ("/".join([*side, name]) for side, name in zip(folders, names, strict=True))
    return None if left == right else PairRule(left, right)


def _affixes(picture: str, mask: str) -> tuple[str, str] | None:
    """Return both file names with their longest common part as `{id}`."""
    ours, theirs = without_suffix(picture), without_suffix(mask)
    ends = picture[len(ours) :], mask[len(theirs) :]
    if normal(ours) == normal(theirs):
        return f"{{id}}{ends[0]}", f"{{id}}{ends[1]}"
    first, second = _TOKEN.findall(ours), _TOKEN.findall(theirs)
    if normal(ours) == normal(without_suffix(theirs)):  # a.jpg and a.jpg.png
        return f"{{id}}{ends[0]}", f"{{id}}{theirs[len(ours) :]}{ends[1]}"
    same = [normal(one) for one in first], [normal(one) for one in second]
    runs = [
        (i, j, _run(same[0][i:], same[1][j:]))
        for i in range(len(first))
        for j in range(len(second))
    ]
    i, j, size = max(runs, key=lambda run: sum(map(str.isalnum, first[run[0] : run[0] + run[2]])))
    while size and not first[i].isalnum():
        i, j, size = i + 1, j + 1, size - 1
    while size and not first[i + size - 1].isalnum():
        size -= 1
    if not size:
        return None
    return (
        "".join(first[:i]) + "{id}" + "".join(first[i + size :]) + ends[0],
        "".join(second[:j]) + "{id}" + "".join(second[j + size :]) + ends[1],
    )


def _run(one: list[str], other: list[str]) -> int:
    """Return how many parts two lists have in common from their beginning."""
    differ = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


def _folders(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[list[str], list[str]] | None:
    """Return the folders of both files with common ones as fields."""
    start = 0
    while start < min(len(ours), len(theirs)) and ours[start] == theirs[start]:
        start += 1
    end = 0
    while end < min(len(ours), len(theirs)) - start and ours[-1 - end] == theirs[-1 - end]:
        end += 1
    middle = ours[start : len(ours) - end], theirs[start : len(theirs) - end]
    left: list[str] = []
    right: list[str] = []
    if start:
        left, right = ["{dir}"], ["{dir}"]
    if len(middle[0]) == len(middle[1]):
        for one, other in zip(*middle, strict=True):
            mine, its = _split_field(one, other, len(left))
            left, right = [*left, mine], [*right, its]
    else:
        ours_only = [_SPLIT.sub("{split}", part, count=1) for part in middle[0]]
        if "".join(ours_only).count("{split}") > 1:
            return None
        left, right = [*left, *ours_only], [*right, *middle[1]]
    if end:
        left, right = [*left, "{below}"], [*right, "{below}"]
    return left, right


def _split_field(one: str, other: str, place: int) -> tuple[str, str]:
    """Return the names of two folders, the word for a split in both of them as a field."""
    field = f"{{split{place or ''}}}"
    if one.lower() in FOLDER_WORDS and one in other:
        return field, other.replace(one, field, 1)
    if other.lower() in FOLDER_WORDS and other in one:
        return one.replace(other, field, 1), field
    ours, theirs = _SPLIT.search(one), _SPLIT.search(other)
    if not ours or not theirs or ours[1].lower() != theirs[1].lower():
        return one, other
    return (
        one[: ours.start()] + field + one[ours.end() :],
        other[: theirs.start()] + field + other[theirs.end() :],
    )


def _paired(rule: PairRule, names: Sequence[str], known: dict[str, str]) -> list[tuple[str, str]]:
    """Return the pairs that a rule makes; none if two pictures would share a mask."""
    pairs = []
    used = set()
    for name in names:
        fields = rule.fields_of(name)
        mask = known.get(normal(rule.mask_of(fields))) if fields else None
        if mask is not None and mask != name:
            if mask in used or _of_two_splits(name, mask):
                return []
            used.add(mask)
            pairs.append((name, mask))
    return pairs


def _of_two_splits(picture: str, mask: str) -> bool:
    ours, theirs = split_of(picture), split_of(mask)
    return bool(ours and theirs and ours[0] != theirs[0])


def _relative(rule: PairRule, pairs: list[tuple[str, str]]) -> Layout:
    """Return a rule relative to the folders that all its files lie in, fields as plain as can be.

    A field of one value becomes this value, neighbouring fields one.
    """
    values: dict[str, set[str]] = defaultdict(set)
    for picture, _ in pairs:
        for field, text in (rule.fields_of(picture) or {}).items():
            values[field].add(text)
    image, mask = rule.image, rule.mask
    for field, texts in values.items():
        if field != "id" and len(texts) == 1:
            text = next(iter(texts))
            image, mask = (side.replace(f"{{{field}}}", text) for side in (image, mask))
    sides = [side.split("/") for side in (image, mask)]
    for field in ("{below}", "{dir}"):
        if all(side[-2:-1] == [field] and side[-1].startswith("{id}") for side in sides):
            sides = [[*side[:-2], side[-1]] for side in sides]
    homes = []
    for side in sides:
        home = 0
        while home < len(side) - 1 and "{" not in side[home]:
            home += 1
        homes.append(home)
    images, masks = ("/".join(side[:home]) or "." for side, home in zip(sides, homes, strict=True))
    left, right = ("/".join(side[home:]) for side, home in zip(sides, homes, strict=True))
    if images != masks and left.rpartition(".")[0] == right.rpartition(".")[0] == "{id}":
        left = right = "{id}" + ANY_SUFFIX
    return Layout(images, masks, PairRule(left, right), tuple(pairs))


def merged(layouts: Sequence[Layout]) -> list[Layout]:
    """Join rules that differ in the suffix of pictures or masks alone: it becomes `.*`."""
    groups: dict[tuple[str, str, str, str], list[Layout]] = defaultdict(list)
    for layout in layouts:
        stems = tuple(without_suffix(side) for side in (layout.rule.image, layout.rule.mask))
        groups[layout.images, layout.masks, stems[0], stems[1]].append(layout)
    joined = []
    for (_, _, image, mask), group in groups.items():
        pictures = {picture for one in group for picture, _ in one.pairs}
        if len(group) == 1 or any(mask in pictures for one in group for _, mask in one.pairs):
            joined += group
            continue
        rule = group[0].rule
        if len({one.rule.image for one in group}) > 1:
            rule = replace(rule, image=image + ANY_SUFFIX)
        if len({one.rule.mask for one in group}) > 1:
            rule = replace(rule, mask=mask + ANY_SUFFIX)
        pairs = sorted({pair for one in group for pair in one.pairs})
        joined.append(Layout(group[0].images, group[0].masks, rule, tuple(pairs)))
    return sorted(joined, key=lambda one: (-len(one.pairs), str(one.rule)))
