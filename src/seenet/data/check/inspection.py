"""The verdict of `seenet data check` on the data of a recipe: every file, every split, and what stands in two of them."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from seenet.core.errors import DataError
from seenet.core.settings import DataSettings
from seenet.data import list_split
from seenet.data.check.scan import BINARY, Examined, Finding, Note, examine_all, finding, likely_cause, no_class, strange_ids
from seenet.data.check.stats import SplitStats, gather
from seenet.data.folder import by_stem, description_path, read_description
from seenet.data.split import FileSplit, Split


class Cure(NamedTuple):
    """What would mend errors of one kind, how many, and how many pixels they concern, where that was counted."""

    kind: str
    times: int
    pixels: int
    fix: str


@dataclass(frozen=True)
class SplitVerdict:
    """A split, None where it cannot be opened, with all that is wrong and noted in it."""

    which: str
    split: Split | None
    pairs: tuple[Examined, ...]
    findings: tuple[Finding, ...]
    notes: tuple[Note, ...]

    @property
    def name(self) -> str:
        return self.split.name if self.split else self.which

    def stats(self) -> SplitStats | None:
        """Counts of the masks that could be read; an id that is no class counts as void. None where there is none."""
        counted = [(pair.counts, pair.shape) for pair in self.pairs if pair.counts is not None]
        return gather(self.split.labels, counted) if self.split and counted else None

    def strange(self) -> dict[int, tuple[int, int]]:
        """Pixels and masks of each id that is neither a class nor ignored."""
        assert self.split is not None
        pixels: Counter[int] = Counter()
        masks: Counter[int] = Counter()
        for pair in self.pairs:
            found = strange_ids(pair.counts or {}, self.split.labels)
            pixels.update(found)
            masks.update(found.keys())
        return {label: (pixels[label], masks[label]) for label in sorted(pixels)}

    def colour(self) -> tuple[list[float], list[float]] | None:
        """Mean and standard deviation of R, G and B over all pixels of the pictures that could be read, 0 to 1; None without any."""
        moments = [pair.moments for pair in self.pairs if pair.moments is not None]
        if not moments:
            return None
        total = sum(count for count, _, _ in moments)
        sums = [sum(one[1][channel] for one in moments) for channel in range(3)]
        squares = [sum(one[2][channel] for one in moments) for channel in range(3)]
        # In whole numbers up to the last step, so that nothing cancels.
        variances = [(total * square - part**2) / total**2 for part, square in zip(sums, squares, strict=True)]
        return [part / total / 255 for part in sums], [math.sqrt(variance) / 255 for variance in variances]

    def cures(self) -> list[Cure]:
        """Errors with the same cure together, the most frequent first."""
        alike: dict[tuple[str, str], list[Finding]] = defaultdict(list)
        for found in self.findings:
            alike[self._cure(found)].append(found)
        cures = [Cure(kind, len(some), sum(one.pixels or 0 for one in some), fix) for (kind, fix), some in alike.items()]
        return sorted(cures, key=lambda cure: -cure.times)

    def _cure(self, found: Finding) -> tuple[str, str]:
        """Kind and cure; of strange ids by those of the whole split: one mask alone may look like another kind."""
        if self.split is None or not self._ids or not found.fix.startswith(("looks like", "add the classes")):
            return found.kind, found.fix
        return likely_cause(self._ids, self.split.labels)

    @cached_property
    def _ids(self) -> set[int]:
        return {label for pair in self.pairs for label in pair.counts or {}}

    def verdicts(self) -> Iterator[tuple[str, str]]:
        """Key of each pair, and `wrong`, `noted` or `good`."""
        wrong, noted = {found.key for found in self.findings}, {note.key for note in self.notes}
        for index in range(len(self.pairs)):
            assert self.split is not None
            key = self.split.key(index)
            yield key, "wrong" if key in wrong else "noted" if key in noted else "good"


@dataclass(frozen=True)
class Inspection:
    """All splits, and what is wrong with the data beside them."""

    splits: tuple[SplitVerdict, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> list[Finding]:
        return [*self.findings, *(found for verdict in self.splits for found in verdict.findings)]

    @property
    def notes(self) -> list[Note]:
        return [note for verdict in self.splits for note in verdict.notes]


def inspect(settings: DataSettings, processes: int | None = None) -> Inspection:
    """Look at every file of the splits that a recipe trains and validates on.

    Raises what `list_split` raises where no split can be opened; of several, one that cannot is a finding.
    """
    opened: dict[str, Split | DataError] = {}
    for which in dict.fromkeys([settings.train, *([settings.val] if settings.val else [])]):
        try:
            opened[which] = list_split(settings, which)
        except DataError as error:
            opened[which] = error
    failed = [found for found in opened.values() if isinstance(found, DataError)]
    if len(failed) == len(opened):
        raise failed[0]
    pairs = {which: () if isinstance(found, DataError) else tuple(examine_all(found, processes)) for which, found in opened.items()}
    # Known data sets have one kind of mask; those of one's own may be of two.
    suspected = settings.kind == "folder" and void_alone([pair for some in pairs.values() for pair in some])
    seen: dict[str, Seen] = {}
    verdicts = []
    for which, split in opened.items():
        if isinstance(split, DataError):
            verdicts.append(SplitVerdict(which, None, (), (finding(which, "", which, split),), ()))
            continue
        findings = [one for pair in pairs[which] for one in pair.findings]
        findings += [*repeated(split, pairs[which], seen), *binary(split, pairs[which], suspected), *unlabelled(split, pairs[which])]
        verdicts.append(
            SplitVerdict(which, split, pairs[which], tuple(findings), tuple(note for pair in pairs[which] for note in pair.notes))
        )
    return Inspection(tuple(verdicts), tuple(beside(settings, [split for split in opened.values() if not isinstance(split, DataError)])))


class Seen(NamedTuple):
    """Where a picture stood first."""

    split: str
    file: str
    mask: str


def beside(settings: DataSettings, splits: Sequence[Split]) -> Iterator[Finding]:
    """What belongs to no split, or to the choice of them."""
    if settings.kind == "folder":
        about = read_description(description_path(settings))
        home, suffix = description_path(settings).parent, about.mask_suffix
        pictures = by_stem(home / about.images)
        listed = {mask for split in splits if isinstance(split, FileSplit) for mask in split.masks}
        for stem, path in by_stem(home / about.masks).items():
            if stem.endswith(suffix) and stem.removesuffix(suffix) not in pictures and path not in listed:
                error = DataError(f"{path}: a mask without a picture", fix="copy the picture there, or take the mask out", kind="missing")
                yield finding("", stem, path, error)
    if settings.train == settings.val:
        what = f"{settings.train}: training and validation are one split"
        yield finding("", "", settings.train, DataError(what, fix="set data.val to another, or to null", kind="leak"))


def repeated(split: Split, pairs: Sequence[Examined], seen: dict[str, Seen]) -> Iterator[Finding]:
    """Pictures that stood before, in this split or another, whatever their format; `seen` remembers all by their decoded pixels."""
    for index, pair in enumerate(pairs):
        if not pair.picture:
            continue
        file = str(split.paths(index)[0] or split.key(index))
        if pair.picture not in seen:
            seen[pair.picture] = Seen(split.name, file, pair.mask)
            continue
        first = seen[pair.picture]
        leak = first.split != split.name
        what = "the same file stands" if first.file == file else f"the same pixels as {first.file}"
        where = f" in {first.split} too" if leak else " twice" if first.file == file else ""
        other = ", and their masks differ" if pair.mask and first.mask and pair.mask != first.mask else ""
        fix = f"a score on it says nothing: take it out of one of {first.split} and {split.name}" if leak else "keep one of the two"
        error = DataError(f"{file}: {what}{where}{other}", fix=fix, kind="leak" if leak else "duplicate")
        yield replace(finding(split.name, split.key(index), file, error), other=first.file)


def binary(split: Split, pairs: Sequence[Examined], suspected: bool) -> Iterator[Finding]:
    """Masks of 0 and 255 alone in a set whose other masks never hold 255: a foreground that would be ignored as void."""
    for index, pair in enumerate(pairs):
        if suspected and pair.counts and pair.counts.keys() == {0, 255} and split.labels.ignore == 255 and split.labels.num_classes > 1:
            path = split.paths(index)[1] or split.key(index)
            error = DataError(
                f"{path}: 255 is ignored, and no mask holds it beside other classes", fix=BINARY, kind="mask-kind", pixels=pair.counts[255]
            )
            yield finding(split.name, split.key(index), path, error)


def unlabelled(split: Split, pairs: Sequence[Examined]) -> Iterator[Finding]:
    ids = {label for pair in pairs for label in pair.counts or {}}
    if ids == {split.labels.ignore}:
        error = DataError(f"{split.name}: {no_class(len(pairs), split.labels)}", fix="look at `ignore`", kind="empty-split")
        yield finding(split.name, "", split.name, error)


def void_alone(pairs: Sequence[Examined]) -> bool:
    """Whether 255 never stands in a mask with a class other than 0."""
    return not any(255 in pair.counts and pair.counts.keys() - {0, 255} for pair in pairs if pair.counts)
