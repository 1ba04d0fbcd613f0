"""Find the errors in the data of a recipe, for `seenet data check`."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from seenet.core.errors import DataError
from seenet.core.images import read_header
from seenet.core.settings import DataSettings
from seenet.data import list_split
from seenet.data.check.plausible import doubts, implausible, untaught
from seenet.data.check.scan import Examined, Problem, examine_all
from seenet.data.check.stats import (
    BINARY,
    ChannelStats,
    SplitStats,
    channel_mean_and_std,
    gather,
    likely_cause,
    no_class,
    strange_ids,
)
from seenet.data.description import description_path, read_description
from seenet.data.folder import described_pairs
from seenet.data.split import FileSplit, Split


@dataclass(frozen=True)
class Finding:
    """An error in a file, or in a whole split (`key` is "").

    Attributes:
        message: one line, as training would print it.
        pixels: number of wrong pixels, where counted.
        other: the file with the same image.
    """

    split: str
    key: str
    file: str
    kind: str
    message: str
    fix: str
    pixels: int | None = None
    other: str = ""


@dataclass(frozen=True)
class Note:
    """A conversion that decoding applies to a file; no error."""

    split: str
    key: str
    file: str
    note: str


class Cure(NamedTuple):
    """The fix for errors of one kind, their number, and their pixels where counted."""

    kind: str
    times: int
    pixels: int
    fix: str


@dataclass(frozen=True)
class SplitVerdict:
    """Errors and notes of a split; `split` is None if it cannot be opened."""

    which: str
    split: Split | None
    pairs: tuple[Examined, ...]
    findings: tuple[Finding, ...]
    notes: tuple[Note, ...]

    @property
    def name(self) -> str:
        return self.split.name if self.split else self.which

    @cached_property
    def stats(self) -> SplitStats | None:
        """Counts of the masks that were read; None if there are none."""
        counted = [(pair.counts, pair.shape) for pair in self.pairs if pair.counts is not None]
        return gather(self.split.labels, counted) if self.split and counted else None

    def doubts(self) -> list[str]:
        """Return warnings about the split as a whole."""
        if self.split is None or self.stats is None:
            return []
        return list(doubts(self.split, self.pairs, self.stats))

    def strange(self) -> dict[int, tuple[int, int]]:
        """Return numbers of pixels and masks of each id that is neither a class nor ignored."""
        assert self.split is not None
        pixels: Counter[int] = Counter()
        masks: Counter[int] = Counter()
        for pair in self.pairs:
            found = strange_ids(pair.counts or {}, self.split.labels)
            pixels.update(found)
            masks.update(found.keys())
        return {label: (pixels[label], masks[label]) for label in sorted(pixels)}

    def colour(self) -> ChannelStats | None:
        """Return mean and standard deviation of each channel, 0 to 1, over all pixels."""
        moments = [pair.moments for pair in self.pairs if pair.moments is not None]
        return channel_mean_and_std(moments) if moments else None

    def cures(self) -> list[Cure]:
        """Return the fixes for the errors, the most frequent first."""
        groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
        for finding in self.findings:
            groups[self._cure(finding)].append(finding)
        cures = [
            Cure(kind, len(group), sum(one.pixels or 0 for one in group), fix)
            for (kind, fix), group in groups.items()
        ]
        return sorted(cures, key=lambda cure: -cure.times)

    def _cure(self, finding: Finding) -> tuple[str, str]:
        """Return kind and fix of an error.

        For unknown ids the fix is guessed from all masks of the split: a single mask may look like
        another kind.
        """
        guessed = finding.fix.startswith(("looks like", "add the classes"))
        if self.split is None or not self._ids or not guessed:
            return finding.kind, finding.fix
        return likely_cause(self._ids, self.split.labels)

    @cached_property
    def _ids(self) -> set[int]:
        return {label for pair in self.pairs for label in pair.counts or {}}

    def verdicts(self) -> Iterator[tuple[str, str]]:
        """Yield the key of each pair with `wrong`, `noted` or `good`."""
        wrong = {finding.key for finding in self.findings}
        noted = {note.key for note in self.notes}
        for index in range(len(self.pairs)):
            assert self.split is not None
            key = self.split.key(index)
            yield key, "wrong" if key in wrong else "noted" if key in noted else "good"


@dataclass(frozen=True)
class Inspection:
    """Verdicts on all splits, and errors outside them."""

    splits: tuple[SplitVerdict, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> list[Finding]:
        return [*self.findings, *(found for verdict in self.splits for found in verdict.findings)]

    @property
    def notes(self) -> list[Note]:
        return [note for verdict in self.splits for note in verdict.notes]

    def doubts(self) -> list[str]:
        """Return warnings about all splits: what may be wrong though no file is."""
        found = [
            f"{verdict.name}: {doubt}" for verdict in self.splits for doubt in verdict.doubts()
        ]
        stats = [verdict.stats for verdict in self.splits]
        if len(stats) == 2 and stats[0] is not None and stats[1] is not None:
            found += [text for text in [untaught(stats[0], stats[1])] if text]
        return found


def inspect(settings: DataSettings, processes: int | None = None) -> Inspection:
    """Examine every file of the splits that a recipe trains and validates on.

    Args:
        settings: `data` of the recipe.
        processes: as for `examine_all`.

    Raises:
        DataError, UsageError: as `list_split`, if no split can be opened. If one of several cannot,
            that is a finding.
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
    splits = {which: split for which, split in opened.items() if not isinstance(split, DataError)}
    pairs = {which: tuple(examine_all(split, processes)) for which, split in splits.items()}
    # 255 beside a class other than 0 is a void rim. Else masks of 0 and 255 alone may be binary;
    # only a user's own data can have such masks.
    rim = any(
        255 in pair.counts and pair.counts.keys() - {0, 255}
        for examined in pairs.values()
        for pair in examined
        if pair.counts
    )
    suspected = settings.kind == "folder" and not rim
    seen: dict[str, _First] = {}
    verdicts = []
    for which, found in opened.items():
        if isinstance(found, DataError):
            finding = _finding(which, "", which, found)
            verdicts.append(SplitVerdict(which, None, (), (finding,), ()))
        else:
            verdicts.append(_judge(which, found, pairs[which], suspected, seen))
    return Inspection(tuple(verdicts), tuple(_outside(settings, list(splits.values()))))


class _First(NamedTuple):
    """First occurrence of an image; `mask` is the hash of its mask."""

    split: str
    file: str
    mask: str


def _judge(
    which: str,
    split: Split,
    pairs: tuple[Examined, ...],
    suspected: bool,
    seen: dict[str, _First],
) -> SplitVerdict:
    """List the errors of single files, then those of files that are good by themselves."""
    keyed = [(split.key(index), pair) for index, pair in enumerate(pairs)]
    findings = [
        Finding(split.name, key, *problem) for key, pair in keyed for problem in pair.problems
    ]
    findings += _duplicates(split, pairs, seen)
    if suspected:
        findings += _binary_masks(split, pairs)
    if {label for pair in pairs for label in pair.counts or {}} == {split.labels.ignore}:
        what = f"{split.name}: {no_class(len(pairs), split.labels)}"
        error = DataError(what, fix="check `ignore`", kind="empty-split")
        findings.append(_finding(split.name, "", split.name, error))
    notes = [Note(split.name, key, *note) for key, pair in keyed for note in pair.notes]
    verdict = SplitVerdict(which, split, pairs, tuple(findings), tuple(notes))
    stats = verdict.stats
    if stats and not any(finding.kind == "mask-kind" for finding in findings):
        whole = [_finding(split.name, "", split.name, e) for e in implausible(split, pairs, stats)]
        verdict = replace(verdict, findings=(*verdict.findings, *whole))
    return verdict


def _finding(
    split: str, key: str, path: Path | str, error: DataError, *, other: str = ""
) -> Finding:
    return Finding(split, key, *Problem.of(path, error), other)


def _duplicates(
    split: Split, pairs: Sequence[Examined], seen: dict[str, _First]
) -> Iterator[Finding]:
    """Find images that occurred before, in this split or another, in any format.

    `seen` has all images so far, by the hash of their pixels.
    """
    for index, pair in enumerate(pairs):
        if not pair.image_hash:
            continue
        file = str(split.paths(index)[0] or split.key(index))
        if pair.image_hash not in seen:
            seen[pair.image_hash] = _First(split.name, file, pair.mask_hash)
            continue
        first = seen[pair.image_hash]
        leak = first.split != split.name
        same = first.file == file
        what = "the same file stands" if same else f"the same pixels as {first.file}"
        where = f" in {first.split} too" if leak else " twice" if same else ""
        differ = pair.mask_hash and first.mask and pair.mask_hash != first.mask
        fix = (
            f"a score on it says nothing: take it out of one of {first.split} and {split.name}"
            if leak
            else "keep one of the two"
        )
        error = DataError(
            f"{file}: {what}{where}{', and their masks differ' if differ else ''}",
            fix=fix,
            kind="leak" if leak else "duplicate",
        )
        yield _finding(split.name, split.key(index), file, error, other=first.file)


def _binary_masks(split: Split, pairs: Sequence[Examined]) -> Iterator[Finding]:
    """Find masks of 0 and 255 alone, whose foreground would be ignored as void."""
    if split.labels.ignore != 255 or split.labels.num_classes < 2:
        return
    for index, pair in enumerate(pairs):
        if pair.counts and pair.counts.keys() == {0, 255}:
            path = split.paths(index)[1] or split.key(index)
            # Who writes a palette means its index 255.
            if isinstance(path, Path) and read_header(path).mode == "P":
                continue
            what = f"{path}: 255 is ignored, and no mask holds it beside other classes"
            error = DataError(what, fix=BINARY, kind="mask-kind", pixels=pair.counts[255])
            yield _finding(split.name, split.key(index), path, error)


def _outside(settings: DataSettings, splits: Sequence[Split]) -> Iterator[Finding]:
    """Find masks that belong to no image, and splits that are the same."""
    if settings.kind == "folder":
        path = description_path(settings)
        used = {mask for split in splits if isinstance(split, FileSplit) for mask in split.masks}
        lonely = described_pairs(read_description(path), path).lonely
        for mask in (mask for mask in lonely if mask not in used):
            fix = "copy the picture there, or take the mask out"
            error = DataError(f"{mask}: a mask without a picture", fix=fix, kind="missing")
            yield _finding("", mask.stem, mask, error)
    if settings.train == settings.val:
        what = f"{settings.train}: training and validation are one split"
        error = DataError(what, fix="set data.val to another, or to null", kind="leak")
        yield _finding("", "", settings.train, error)
