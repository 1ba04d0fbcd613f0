"""What is wrong with files that are each good on their own: pictures that stand twice, masks of another kind or without a picture."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from seenet.core.errors import DataError
from seenet.core.settings import DataSettings
from seenet.data.check import BINARY, no_class
from seenet.data.description import description_path, read_description
from seenet.data.examine import Examined, Finding, finding
from seenet.data.folder import by_stem
from seenet.data.split import FileSplit, Split


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
