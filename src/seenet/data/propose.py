"""A first `seenet.yaml` for a folder of pictures and masks."""

import json
import re
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.files import write_text
from seenet.core.images import read_colours, read_ids, read_image
from seenet.core.labels import voc_colours
from seenet.core.progress import track
from seenet.data.check import count_ids
from seenet.data.folder import FILE, by_stem

LOOKED_AT = 400
"""Masks looked at, spread over the folder."""
MOST_COLOURS = 256
SUFFIXES = ("", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "-mask")


def write_proposal(folder: Path) -> str:
    """Write FOLDER/seenet.yaml and say what to look at; DataError where one is there, or no masks are found."""
    path = folder / FILE
    if path.exists():
        raise DataError(f"{path}: exists already; edit it, or remove it for a new proposal")
    text = propose(folder)
    write_text(path, text)
    return f"{text}\nwritten: {path}; put the classes' names in"


def propose(folder: Path) -> str:
    """YAML for two subfolders, of which one holds pictures and the other masks of the same names."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one with a folder of pictures and a folder of masks")
    found = {entry.name: by_stem(entry) for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")}
    images, masks, suffix = _pair({name: files for name, files in found.items() if files}, folder)
    paths = [found[masks][stem + suffix] for stem in found[images] if stem + suffix in found[masks]]
    paths = paths[:: -(-len(paths) // LOOKED_AT)]
    head = [f"images: {_quoted(images)}", f"masks: {_quoted(masks)}"] + ([f"mask_suffix: {_quoted(suffix)}"] if suffix else [])
    return "\n".join([*head, "val: 0.2  # this share, chosen by a hash of the names; or a list: val.txt", *_classes(paths)]) + "\n"


def _quoted(name: str) -> str:
    """A name as YAML that reads back as the same text."""
    return name if re.fullmatch(r"\w[\w-]*", name) and yaml.safe_load(name) == name else json.dumps(name)


def _pair(found: dict[str, dict[str, Path]], folder: Path) -> tuple[str, str, str]:
    """Names of the folders of pictures and masks, and what mask stems have behind: the pair with the most names in common."""
    best: tuple[int, str, str, str] = (0, "", "", "")
    colours = {name: _count_colours(next(iter(files.values()))) for name, files in found.items()}
    for images, pictures in found.items():
        for masks, others in found.items():
            if images == masks or colours[masks] >= colours[images]:
                continue
            for suffix in SUFFIXES:
                count = sum(stem + suffix in others for stem in pictures)
                if count > best[0]:
                    best = (count, images, masks, suffix)
    if not best[0]:
        raise DataError(
            f"{folder}: found no folder of pictures beside a folder of masks with the same names; expected images/a.jpg and masks/a.png"
        )
    return best[1:]


def _count_colours(path: Path) -> int:
    """Different values in a file: few in a mask, many in a picture; JPEG never holds a mask."""
    colours = read_image(path).astype(np.int32)
    count = len(np.unique(colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]))
    return count if path.suffix.lower() not in {".jpg", ".jpeg"} else count + 2**24


def _classes(paths: list[Path]) -> list[str]:
    with Image.open(paths[0]) as image:
        mode = image.mode
    return _by_colour(paths) if mode in {"RGB", "RGBA"} else _by_id(paths, "palette" if mode == "P" else "index")


def _by_colour(paths: list[Path]) -> list[str]:
    colours: set[tuple[int, int, int]] = set()
    for path in track(paths, "looking at masks", len(paths)):
        colours |= {(red, green, blue) for red, green, blue in np.unique(read_colours(path).reshape(-1, 3), axis=0).tolist()}
        if len(colours) > MOST_COLOURS:
            raise DataError(
                f"{path}: over {MOST_COLOURS} colours in the masks up to here, expected one a class; were they blurred or saved as JPEG?"
            )
    # In the order of VOC's colour map where the colours are from it.
    order = {colour: label for label, colour in enumerate(voc_colours(256))}
    listed = sorted(colours, key=lambda colour: (order.get(colour, 256), colour))
    return [
        "decode: rgb",
        "# Give the classes their names. A colour that is not to be learned goes from here to the list `ignore_colours: [[r, g, b]]`.",
        "classes:",
        *(f"  class{number}: {list(colour)}" for number, colour in enumerate(listed)),
    ]


def _by_id(paths: list[Path], decode: str) -> list[str]:
    found: set[int] = set()
    for path in track(paths, "looking at masks", len(paths)):
        found |= set(count_ids(read_ids(path)))
    # 255 beside other ids is nearly always void; alone with 0 it is a foreground.
    void = 255 in found and len(found) > 2
    ids = sorted(found - {255} if void else found)
    head = [f"ignore: 255  # {'a guess: the masks hold it' if void else 'the masks do not hold it'}", "# Give the classes their names."]
    # A gap may be a class that is rare; ids that are mostly gaps are another numbering.
    if 2 * len(ids) > max(ids) + 1 and max(ids) < 255:
        names = [
            f"  class{label}: {list(colour)}{'' if label in found else '  # not seen'}"
            for label, colour in enumerate(voc_colours(max(ids) + 1))
        ]
        return [f"decode: {decode}", *head, "classes:", *names]
    if len(ids) > MOST_COLOURS:
        raise DataError(f"{paths[0].parent}: over {MOST_COLOURS} ids in the masks, expected one a class; are they instances?")
    table = ", ".join(f"{label}: {number}" for number, label in enumerate(ids))
    named = [f"  id{label}: {list(colour)}" for label, colour in zip(ids, voc_colours(len(ids)), strict=True)]
    return ["decode: remap", f"remap: {{{table}{', 255: 255' if void else ''}}}", *head, "classes:", *named]
