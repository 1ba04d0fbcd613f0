"""The verdict of `seenet data check` on the data of a recipe: every file, every split, and what stands in two of them."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from seenet.core.errors import DataError
from seenet.core.settings import DataSettings
from seenet.data import list_split
from seenet.data.across import Seen, beside, binary, repeated, unlabelled, void_alone
from seenet.data.check import likely_cause, strange_ids
from seenet.data.examine import Examined, Finding, Note, examine_all, finding
from seenet.data.split import Split
from seenet.data.stats import SplitStats, gather


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
