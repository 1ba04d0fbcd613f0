"""Propose a `seenet.yaml` for a folder of images and masks (`seenet data init`)."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from seenet.core.errors import DataError
from seenet.core.files import files_below, write_text
from seenet.core.images import read_header, read_image
from seenet.core.progress import track
from seenet.data.annotations.tree import OUT
from seenet.data.check.bands import propose_bands
from seenet.data.check.beside import find_classes, splits_from_lists
from seenet.data.check.choose import SAMPLED as LOOKED_AT
from seenet.data.check.choose import Choice, Undecided, choose, name_of
from seenet.data.check.divide import divide
from seenet.data.check.edges import contrast_at_edges
from seenet.data.check.evidence import (
    FileEvidence,
    Series,
    inexact_share,
    series_of,
    values_of,
)
from seenet.data.check.layout import Layout, split_of, spread
from seenet.data.check.values import propose_values, quoted
from seenet.data.convert import Converted, convert, find_annotations, find_unsupported
from seenet.data.description import FILE
from seenet.data.pairing import (
    OWN_FOLDER,
    SAME_NAME,
    SUFFIXES,
    Pairs,
    pair_files,
    without_suffix,
)

SAMPLED = 400
"""Masks that are read, spread over the folder."""
TURNED = 12
"""Pictures with an EXIF rotation that are compared with their masks."""
CLEARLY = 1.2
"""Ratio of the contrasts at edges that decides about the EXIF rotation."""


@dataclass(frozen=True)
class Proposal:
    """A description of a data set.

    Attributes:
        text: content of the `seenet.yaml`.
        lists: content of the lists that it names and that are new, by file name.
        remarks: what to say to the user: what was left out, and why.
    """

    text: str
    lists: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write the lists and the `seenet.yaml` into a folder."""
        for name, text in self.lists.items():
            write_text(folder / name, text)
        write_text(folder / FILE, self.text)


def propose(
    folder: Path,
    *,
    images: str | None = None,
    masks: str | None = None,
    decode: str | None = None,
    exif: str | None = None,
    val: float = 0.2,
    test: float = 0,
) -> Proposal:
    """Describe a folder of images and masks.

    Args:
        folder: the data set.
        images, masks: folder or pattern of the images and masks; None: by what files hold.
        decode: how masks are decoded; None: by what they hold.
        exif: `apply` or `ignore`; None: by what images and masks show.
        val, test: shares of new splits, where the data set brings none.

    Raises:
        DataError: there is a `seenet.yaml`, or no images with masks, with what was found.
        Undecided: more than one reading remains.
    """
    path = folder / FILE
    if path.exists():
        raise DataError(f"{path}: exists already; edit it, or remove it for a new proposal")
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; "
            "expected one with a folder of pictures and a folder of masks"
        )
    names = [path.relative_to(folder).as_posix() for path in files_below(folder, SUFFIXES)]
    names = [name for name in names if not name.startswith(f"{OWN_FOLDER}/")]
    choice, converted = _choose(folder, names, images, masks)
    layout = choice.layout
    pairs = pair_files(folder / layout.images, folder / layout.masks, layout.rule)
    pairs = Pairs(dict(sorted(pairs.images.items())), pairs.masks, pairs.lonely)
    paired = [name for name in pairs.images if name in pairs.masks]
    chosen = spread(paired, SAMPLED)
    found = _read_masks(choice, [pairs.masks[name] for name in chosen])
    classes = find_classes(folder)
    try:
        about_values = propose_values(found, classes, folder=folder, decode=decode)
    except DataError as error:
        raise DataError("; ".join([str(error), *choice.passed])) from None
    remarks = [converted.text()] if converted else []
    remarks.append(f"{name_of(layout, 'images')}: the pictures, {choice.pictures.describe()}")
    remarks.append(f"{name_of(layout, 'masks')}: the masks, {found.describe()}")
    remarks += [f"not taken: {line}" for line in choice.passed]
    if share := inexact_share(found):
        remarks.append(f"{share:.1%} of the masks' pixels have values between those of the classes")
    remarks += _unused(names, folder, pairs, choice)
    remarks += [str(error) for error in (*choice.pictures.damaged, *found.damaged)]
    if classes:
        remarks.append(f"{classes.path}: names of {len(classes.names)} classes")
    lines = [f"images: {quoted(layout.images)}", f"masks: {quoted(layout.masks)}"]
    if not layout.same_name:
        lines.append(f"pair: {quoted(str(layout.rule))}")
    measured = {file.path: set(file.values) for file in found.files}
    held = {name: measured.get(pairs.masks[name], set()) for name in chosen}
    splits, lists, used = _splits(folder, pairs, paired, held, val, test)
    lines += splits
    remarks += used
    alone = [name for name in pairs.images if name not in pairs.masks]
    if alone:
        lines.append(f"unlabelled: skip  # {len(alone)} pictures have no mask, such as {alone[0]}")
        remarks.append(f"{len(alone)} pictures without masks are left out, such as {alone[0]}")
    lines += _exif(folder, pairs, chosen, exif)
    lines += propose_bands([pairs.images[name] for name in chosen])
    lines += about_values
    comments = [f"# {line}" for line in remarks if line.startswith("not taken")]
    return Proposal("\n".join([*comments, *lines]) + "\n", lists, tuple(remarks))


def _unused(names: Sequence[str], folder: Path, pairs: Pairs, choice: Choice) -> list[str]:
    """Return a line for each folder of images that are neither pictures nor masks here."""
    used = {path.relative_to(folder).as_posix() for path in pairs.images.values()}
    used |= {path.relative_to(folder).as_posix() for path in pairs.masks.values()}
    left = [name for name in names if name not in used]
    told = " ".join(choice.passed)
    folders = Counter(str(Path(name).parent) for name in left)
    return [
        f"not taken: {where}: {count} files that pair with none"
        for where, count in folders.most_common(8)
        if where not in told
    ]


def _choose(
    folder: Path, names: list[str], images: str | None, masks: str | None
) -> tuple[Choice, Converted | None]:
    """Choose pictures and masks; make masks of annotations where there are none.

    Raises:
        DataError: as `choose` and `convert`.
    """
    form = None
    if images is None and masks is None:
        if (folder / OUT).exists():  # masks that were made of annotations before
            return choose(folder, names, masks=OUT), None
        form = find_annotations(folder)
    if form is None or not form.startswith("a mask file"):
        try:
            return choose(folder, names, images=images, masks=masks), None
        except DataError as error:
            if form is None:
                unsupported = None if names and masks else find_unsupported(folder)
                if unsupported:
                    raise DataError(f"{folder}: {unsupported}; convert to masks") from error
                raise
    try:
        converted = convert(folder, folder / OUT)
    except DataError as error:
        try:  # perhaps they were masks of several kinds
            return choose(folder, names, images=images, masks=masks), None
        except Undecided:
            raise
        except DataError:
            raise error from None
    pairs = tuple(
        (str(Path(converted.images, name)), f"{OUT}/{without_suffix(name)}.png")
        for name in converted.pictures
    )
    layout = Layout(converted.images, OUT, SAME_NAME, pairs)
    some = spread(pairs, LOOKED_AT)
    pictures, drawn = (series_of([folder / pair[side] for pair in some]) for side in (0, 1))
    return Choice(layout, pictures, drawn, ()), converted


def _read_masks(choice: Choice, paths: Sequence[Path]) -> Series:
    """Measure masks; those that the choice has looked at are not read again."""
    known: dict[Path, FileEvidence] = {file.path: file for file in choice.masks.files}
    rest = [path for path in paths if path not in known]
    parts = [series_of([path]) for path in track(rest, "looking at masks", len(rest))]
    files = [*choice.masks.files, *(file for part in parts for file in part.files)]
    damaged = {str(error): error for part in parts for error in part.damaged}
    return Series(tuple(files), tuple(damaged.values()))


def _splits(
    folder: Path,
    pairs: Pairs,
    paired: list[str],
    held: dict[str, set[int]],
    val: float,
    test: float,
) -> tuple[list[str], dict[str, str], list[str]]:
    """Return lines on the splits, new lists, and remarks: by lists, folders, or drawn anew."""
    given = splits_from_lists(folder, {name: pairs.images[name] for name in paired})
    where = {split: path.relative_to(folder).as_posix() for split, path in given.items()}
    remarks = [f"{folder / name}: the list of {split}" for split, name in where.items()]
    pool = paired
    if "val" not in where:
        where, remarks = {}, []
        by_folder: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for name in paired:
            if found := split_of(pairs.images[name].relative_to(folder).as_posix()):
                by_folder[found[0]][found[1]].append(name)
        where = {split: min(homes) for split, homes in by_folder.items() if len(homes) == 1}
        if {"train", "val"} <= by_folder.keys() and len(where) < len(by_folder):
            # Several folders of one split: lists say the same.
            parts = {split: {*chain(*homes.values())} for split, homes in by_folder.items()}
            drawn = {split: [name for name in paired if name in parts[split]] for split in parts}
            return (*_lists(folder, drawn, "by their folders"), remarks)
        if not {"train", "val"} <= where.keys():
            kept = {word: home for word, home in where.items() if word == "test"}
            out = {name for word in kept for name in by_folder[word][kept[word]]}
            pool = [name for name in paired if name not in out]
            where = kept if pool else {}
            pool = pool or paired
    if "val" in where:
        lines = [f"{split}: {quoted(where[split])}" for split in where]
        return lines, {}, remarks
    shares = {"val": val} | ({"test": test} if test and "test" not in where else {})
    drawn = divide(pool, held, shares)
    left = {name for names in drawn.values() for name in names}
    drawn = {"train": [name for name in pool if name not in left], **drawn}
    lines, lists = _lists(folder, drawn, "drawn by `data init`")
    lines += [f"{split}: {quoted(home)}" for split, home in where.items()]
    return lines, lists, remarks


def _lists(folder: Path, drawn: dict[str, list[str]], why: str) -> tuple[list[str], dict[str, str]]:
    """Return the lines that name new lists of splits, and the lists by file name."""
    total = sum(map(len, drawn.values()))
    lists, lines = {}, []
    for split, names in drawn.items():
        file = f"{split}.txt"
        while (folder / file).exists():
            file = f"seenet-{file}"
        lists[file] = "".join(f"{name}\n" for name in names)
        lines.append(f"{split}: {file}  # {len(names)} of {total}, {why}")
    return lines, lists


def _exif(folder: Path, pairs: Pairs, names: Sequence[str], chosen: str | None) -> list[str]:
    """Return the line on EXIF rotation, if pictures have one that their masks may not follow.

    Raises:
        Undecided: neither sizes nor edges tell whether masks are turned as their pictures.
    """
    if chosen:
        return [f"exif: {chosen}"]
    turned = []
    for name in names:
        image = pairs.images[name]
        if image.suffix.lower() in {".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".png"}:
            try:
                if read_header(image).orientation != 1:
                    turned.append(name)
            except DataError:
                continue
        if len(turned) == TURNED:
            break
    votes = [_turned(pairs.images[name], pairs.masks[name]) for name in turned]
    told = [vote for vote in votes if vote is not None]
    if not turned:
        return []
    applied, ignored = sum(a for a, _ in told), sum(b for _, b in told)
    if applied > CLEARLY * ignored:
        return ["exif: apply  # masks fit the pictures after rotation"]
    if ignored > CLEARLY * applied:
        return ["exif: ignore  # masks fit the pictures as stored"]
    found = f"rotated by EXIF, as {len(turned)} of {len(names)} pictures are"
    choices = {
        "apply": "masks fit the pictures after rotation",
        "ignore": "masks fit the pictures as stored",
    }
    raise Undecided(
        f"{pairs.images[turned[0]]}: {found}, and nothing tells whether masks are turned too",
        folder,
        "exif",
        choices,
    )


def _turned(image: Path, mask: Path) -> tuple[float, float] | None:
    """Return how well a mask fits its picture after EXIF rotation, and as stored."""
    try:
        if read_header(mask).orientation != 1:
            return None
        values = values_of(mask)
        pictures = [read_image(image, upright=upright) for upright in (True, False)]
    except DataError:
        return None
    fits = [picture.shape[:2] == values.shape for picture in pictures]
    if fits[0] != fits[1]:
        return float(fits[0]), float(fits[1])
    if not fits[0]:
        return None
    first, second = (contrast_at_edges(picture, values) for picture in pictures)
    return first, second
