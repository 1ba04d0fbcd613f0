"""Propose how the values of masks become classes."""

import json
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import yaml

from seenet.core.errors import DataError
from seenet.core.labels import IGNORE, voc_colours
from seenet.data.check.beside import ClassList
from seenet.data.check.choose import init_command
from seenet.data.check.evidence import MANY, Series, looks_like_instances
from seenet.data.masks import pack, remap_line, unpacked

MOST = 256
"""Most classes that are proposed."""
Colour = tuple[int, ...]


def quoted(name: str) -> str:
    """Return a name as YAML that reads back as the same text."""
    try:
        plain = re.fullmatch(r"[\w.][\w./-]*", name) and yaml.safe_load(name) == name
    except ValueError:  # 2026-02-30 looks like a date
        plain = False
    return name if plain else json.dumps(name)


def propose_values(
    masks: Series, classes: ClassList | None, *, folder: Path, decode: str | None = None
) -> list[str]:
    """Return the lines of a `seenet.yaml` about the content of masks.

    Args:
        masks: what they hold.
        classes: classes that a file beside them gives.
        folder: the data set, for errors.
        decode: `rgb`, `palette` or another kind that the user chose; None: by what they hold.

    Raises:
        DataError: nothing can be learned from them, or there are too many values.
    """
    if not masks.files:
        raise masks.damaged[0]
    modes = {file.mode for file in masks.files}
    if any(file.mode in ("P", "PA") for file in masks.files):
        by_colour = decode == "rgb" or (decode is None and not _one_palette(masks))
        if by_colour:
            return [
                "# Palettes differ from file to file, so colours count, not indices.",
                *_colours(_in_colours(masks), classes, 0),
            ]
        return _ids(masks, classes, folder, decode or "palette", _palette(masks))
    if not masks.single:
        if masks.constant and any(len(file.alpha) > 1 for file in masks.files):
            return ["channel: alpha", *_ids(_of_alpha(masks), classes, folder, decode)]
        if not masks.values:
            raise DataError(
                f"{masks.files[0].path}: over {MANY} colours, expected one a class; "
                "is it a picture? Name the masks: "
                f"{init_command(folder, '--masks', 'FOLDER')}"
            )
        if all(file.grey for file in masks.files) and decode != "rgb":
            return ["channel: red", *_ids(_of_grey(masks), classes, folder, decode)]
        noise = masks.noise
        if noise is not None:
            return _colours(set(noise), classes, _furthest(masks, noise))
        return _colours(set(masks.values), classes, 0)
    if not masks.values:
        raise DataError(
            f"{masks.files[0].path}: {masks.describe()}, mode {', '.join(sorted(modes))}, expected "
            "class ids: few values, the same in all masks"
        )
    return _ids(masks, classes, folder, decode)


def _one_palette(masks: Series) -> bool:
    """Return whether indices say more than colours: each has one colour in all files."""
    colours: dict[int, set[Colour]] = defaultdict(set)
    for file in masks.files:
        for index, colour in file.palette.items():
            colours[index].add(colour)
    distinct = {colour for found in colours.values() for colour in found}
    # Palettes without any order have more colours than indices.
    return all(len(found) == 1 for found in colours.values()) or len(distinct) > len(colours)


def _palette(masks: Series) -> dict[int, Colour]:
    """Return the colour of each index, if all differ."""
    colours = {index: colour for file in masks.files for index, colour in file.palette.items()}
    return colours if len(set(colours.values())) == len(colours) else {}


def _in_colours(masks: Series) -> set[int]:
    """Return the packed colours of all palettes."""
    return {pack(colour) for file in masks.files for colour in file.palette.values()}


def _of_alpha(masks: Series) -> Series:
    """Return the evidence of the alpha channel as that of masks of one channel."""
    files = [
        replace(one, mode="L", values=one.alpha, looked_at={}, solid={}) for one in masks.files
    ]
    return Series(tuple(files), masks.damaged)


def _of_grey(masks: Series) -> Series:
    """Return the evidence of colours that are all grey as that of masks of one channel."""

    def low(counts: dict[int, int]) -> dict[int, int]:
        return {value & 255: pixels for value, pixels in counts.items()}

    files = [
        replace(
            one, mode="L", values=low(one.values), looked_at=low(one.looked_at),
            solid=low(one.solid),
        )
        for one in masks.files
    ]  # fmt: skip
    return Series(tuple(files), masks.damaged)


def _furthest(masks: Series, modes: list[int]) -> int:
    """Return the tolerance that gives each colour to the nearest of some, in steps of 16."""
    own = [unpacked(mode) for mode in modes]
    worst = max(
        min(max(abs(a - b) for a, b in zip(unpacked(value), colour, strict=True)) for colour in own)
        for value in masks.values
    )
    return min(255, -(-(worst + 1) // 16) * 16)


def _colours(colours: set[int], classes: ClassList | None, tolerance: int) -> list[str]:
    """Propose classes by colour, in the order of the class list, else of VOC's colour map."""
    rows: list[tuple[str, Colour]] = []
    if classes and classes.colours:
        rows = [(classes.names[number], colour) for number, colour in classes.colours.items()]
    given = {colour for _, colour in rows}
    order = {colour: label for label, colour in enumerate(voc_colours(256))}
    others = sorted(
        (unpacked(value) for value in colours if unpacked(value) not in given),
        key=lambda colour: (order.get(colour, 256), colour),
    )
    if len(rows) + len(others) > MOST:
        raise DataError(
            f"{len(rows) + len(others)} colours in the masks, expected at most {MOST}, "
            "one a class; were they blurred or saved as JPEG?"
        )
    rows += [(f"class{len(rows) + number}", colour) for number, colour in enumerate(others)]
    lines = ["decode: rgb"]
    if tolerance:
        lines.append(f"tolerance: {tolerance}  # blurred or JPEG: the nearest colour counts")
    lines.append(
        "# Give the classes their names. "
        "Move a colour that is not to be learned to the list `ignore_colours: [[r, g, b]]`."
    )
    return [*lines, "classes:", *(f"  {quoted(name)}: {list(colour)}" for name, colour in rows)]


def _ids(
    masks: Series,
    classes: ClassList | None,
    folder: Path,
    decode: str | None,
    colours: dict[int, Colour] | None = None,
) -> list[str]:
    """Propose classes by id."""
    found = masks.values
    if len(found) == 1:
        value = next(iter(found))
        raise DataError(
            f"{masks.files[0].path}: {value} everywhere, as in all {len(masks.files)} masks that "
            "were read, so there is nothing to learn; name other masks: "
            f"{init_command(folder, '--masks', 'FOLDER')}"
        )
    noise = masks.noise if decode in (None, "threshold", "nearest") else None
    if decode == "threshold" or (noise is not None and len(noise) == 2):
        low, high = (noise or [0, 255])[:2]
        return _threshold((low + high + 1) // 2, classes, "values between are noise")
    if noise is not None:
        return _table("nearest", noise, None, classes, "values between are noise: the nearest")
    if decode is None and looks_like_instances(masks):
        return _threshold(1, classes, f"{len(found)} ids that count objects: all are one class")
    void = [value for value in found if value < 0]
    rest = sorted(value for value in found if value >= 0)
    total = sum(found.values())
    small = [value for value in rest if value != IGNORE]
    if IGNORE in found and len(small) > 1 and max(small) < 100 and found[IGNORE] < total / 2:
        void.append(IGNORE)
        rest = small
    if len(rest) > MOST:
        raise DataError(
            f"{masks.files[0].path.parent}: {len(rest)} ids in the masks, expected at most {MOST}, "
            "one a class; are they objects? As one class: "
            f"{init_command(folder, '--decode', 'threshold')}"
        )
    names = dict(classes.names) if classes else {}
    if names and 0 not in names and min(rest) == 0:
        names[0] = "background"
    elif names and min(rest) == 0 and max(rest) == len(names) == max(names) + 1:
        names = {0: "background", **{number + 1: name for number, name in names.items()}}
    top = max([*rest, *(names if max(names, default=0) < IGNORE else ())])
    negative = [value for value in void if value != IGNORE]
    # A gap may be a rare class; ids that are mostly gaps are another numbering.
    dense = 2 * len(set(rest) | set(names)) > top + 1
    if dense and top < IGNORE and not negative:
        own = colours if colours and set(rest) <= set(colours) else {}
        table = voc_colours(top + 1)
        used = {own.get(label, table[label]) for label in range(top + 1)}
        shown = own if len(used) == top + 1 else {}
        guess = "a guess: the masks hold it" if void else "the masks do not hold it"
        return [
            f"decode: {decode if decode == 'palette' else 'index'}",
            f"ignore: {IGNORE}  # {guess}",
            "# Give the classes their names.",
            "classes:",
            *(
                f"  {quoted(names.get(label, f'class{label}'))}: "
                f"{list(shown.get(label, table[label]))}{'' if label in found else '  # not seen'}"
                for label in range(top + 1)
            ),
        ]
    return _table("remap", rest, void, classes, "")


def _threshold(value: int, classes: ClassList | None, why: str) -> list[str]:
    names = list(classes.names.values())[:2] if classes and len(classes.names) == 2 else []
    first, second = names or ["background", "foreground"]
    return [
        f"decode: threshold  # {why}",
        f"threshold: {value}",
        "classes:",
        f"  {quoted(first)}: [0, 0, 0]",
        f"  {quoted(second)}: [128, 0, 0]",
    ]


def _table(
    decode: str, ids: list[int], void: list[int] | None, classes: ClassList | None, why: str
) -> list[str]:
    """Propose a table from the ids in the files to classes."""
    table = {label: number for number, label in enumerate(ids)}
    table |= dict.fromkeys(void or [], IGNORE)
    names = classes.names if classes else {}
    plain = {0: "background", 1: "foreground"} if len(ids) == 2 and ids[0] == 0 else {}
    lines = [f"decode: {decode}{f'  # {why}' if why else ''}", remap_line(table)]
    if void:
        lines.append(f"ignore: {IGNORE}  # a guess: {', '.join(map(str, void))} in the files")
    lines += ["# Give the classes their names.", "classes:"]
    return lines + [
        f"  {quoted(names.get(label) or plain.get(number) or f'id{label}')}: {list(colour)}"
        for (number, label), colour in zip(enumerate(ids), voc_colours(len(ids)), strict=True)
    ]
