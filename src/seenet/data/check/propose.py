"""Propose a `seenet.yaml` for a folder of images and masks (`seenet data init`)."""

import json
import re
from pathlib import Path
from typing import NoReturn

import numpy as np
import yaml

from seenet.core.errors import DataError
from seenet.core.files import write_text
from seenet.core.images import read_colours, read_header, read_ids, read_image
from seenet.core.labels import voc_colours
from seenet.core.progress import track
from seenet.data.check.stats import count_ids
from seenet.data.folder import FILE, by_stem, in_share, read_stems

SAMPLED = 400
"""Number of masks that are read, spread over the folder."""
MOST_COLOURS = 256
SUFFIXES = ("", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "-mask")
"""Common suffixes of a mask's stem after its image's."""
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation")}
"""Common names of the folder of a split."""
HERE = "."
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "pictures", "photos", "jpegimages")
"""Common names of a folder of images; in other folders the number of colours decides."""
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "gt", "segmentation",
    "segmentationclass",
)  # fmt: skip


def write_proposal(folder: Path) -> str:
    """Write FOLDER/seenet.yaml; return its text and what to do next.

    Raises:
        DataError: the file exists, or there are no masks.
    """
    path = folder / FILE
    if path.exists():
        raise DataError(f"{path}: exists already; edit it, or remove it for a new proposal")
    text = propose(folder)
    write_text(path, text)
    return f"{text}\nwritten: {path}; put the classes' names in"


def propose(folder: Path) -> str:
    """Describe, as YAML, a folder of images beside a folder of masks with the same names.

    Images and masks may share a folder if the masks have a suffix. The splits are subfolders
    (images/train, images/val), else lists (train.txt, val.txt), else a share.

    Raises:
        DataError: another layout, or masks with too many colours or ids.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; "
            "expected one with a folder of pictures and a folder of masks"
        )
    entries = [entry for entry in sorted(folder.iterdir()) if entry.is_dir()]
    found = {entry.name: by_stem(entry) for entry in entries if not entry.name.startswith(".")}
    found = {name: files for name, files in found.items() if files}
    pair = _find_pair(found)
    if pair is None:
        found[HERE] = by_stem(folder)
        pair = _find_pair(found) or _refuse_layout(found, folder)
    images, masks, suffix = pair
    paired = [stem for stem in found[images] if stem + suffix in found[masks]]
    paths = [found[masks][stem + suffix] for stem in paired[:: -(-len(paired) // SAMPLED)]]
    lines = [f"images: {_quoted(images)}", f"masks: {_quoted(masks)}"]
    if suffix:
        lines.append(f"mask_suffix: {_quoted(suffix)}")
    splits = {split: _find_split(split, folder, images, found[images]) for split in SPLITS}
    lines += [f"{split}: {_quoted(where)}" for split, where in splits.items() if where]
    if not splits["val"]:
        count = f"{len(in_share(paired, 0.2))} of {len(paired)}"
        lines.append(
            f"val: 0.2  # this share, chosen by a hash of the names (now {count}); "
            "or a list: val.txt"
        )
    mode = read_header(paths[0]).mode
    if mode in {"RGB", "RGBA"}:
        lines += _by_colour(paths)
    else:
        lines += _by_id(paths, "palette" if mode == "P" else "index")
    return "\n".join(lines) + "\n"


def _find_split(split: str, folder: Path, images: str, pictures: dict[str, Path]) -> str | None:
    """Return the folder or the list of `train` or `val`, if there is one.

    Raises:
        DataError: the list has an entry that is no image.
    """
    for name in SPLITS[split]:
        if any(stem.startswith(f"{name}/") for stem in pictures):
            return (Path(images) / name).as_posix()
    path = folder / f"{split}.txt"
    if not path.is_file():
        return None
    unknown = [stem for stem in read_stems(path, path, pictures) if stem not in pictures]
    if unknown:
        raise DataError(
            f"{path}: found {unknown[0]}, no picture below {folder / images}; "
            f"expected one name a line, such as {next(iter(pictures))}"
        )
    return path.name


def _quoted(name: str) -> str:
    """Return a name as YAML that reads back as the same text."""
    try:
        plain = re.fullmatch(r"[\w.][\w./-]*", name) and yaml.safe_load(name) == name
    except ValueError:  # 2026-02-30 looks like a date
        plain = False
    return name if plain else json.dumps(name)


def _find_pair(found: dict[str, dict[str, Path]]) -> tuple[str, str, str] | None:
    """Return the folders of images and masks with the most names in common, and the mask suffix."""
    best: tuple[int, str, str, str] = (0, "", "", "")
    for images, pictures in found.items():
        for masks, others in found.items():
            if images.lower() in MASK_FOLDERS or masks.lower() in IMAGE_FOLDERS:
                continue
            if images != masks and HERE in {images, masks}:
                continue
            named = images.lower() in IMAGE_FOLDERS or masks.lower() in MASK_FOLDERS
            for suffix in SUFFIXES if images != masks else SUFFIXES[1:]:
                common = [stem for stem in pictures if stem + suffix in others]
                if len(common) > best[0] and (
                    named
                    or _count_colours(others[common[0] + suffix])
                    < _count_colours(pictures[common[0]])
                ):
                    best = (len(common), images, masks, suffix)
    # A folder called train or val is only a part of the data set.
    names = {*SPLITS["train"], *SPLITS["val"]}
    return best[1:] if best[0] and not {best[1], best[2]} & names else None


def _refuse_layout(found: dict[str, dict[str, Path]], folder: Path) -> NoReturn:
    """Raise DataError with the layout that is expected."""
    splits = sorted(found.keys() & {*SPLITS["train"], *SPLITS["val"]})
    if splits:
        raise DataError(
            f"{folder}: found {' and '.join(splits)} on its first level, expected pictures in "
            "images/train and images/val and masks in masks/train and masks/val; move them so"
        )
    raise DataError(
        f"{folder}: found no folder of pictures beside a folder of masks with the same names; "
        "expected images/a.jpg and masks/a.png, or a.jpg and a_mask.png in one folder"
    )


def _count_colours(path: Path) -> int:
    """Count the values in a file: few in a mask, many in an image; a JPEG is never a mask."""
    if read_header(path).mode == "I":
        return len(np.unique(read_ids(path)))  # ids of 32 bits, or grey of 16
    colours = read_image(path).astype(np.int32)
    count = len(np.unique(colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]))
    return count if path.suffix.lower() not in {".jpg", ".jpeg"} else count + 2**24


def _by_colour(paths: list[Path]) -> list[str]:
    colours: set[tuple[int, int, int]] = set()
    for path in track(paths, "looking at masks", len(paths)):
        found = np.unique(read_colours(path).reshape(-1, 3), axis=0).tolist()
        colours |= {(red, green, blue) for red, green, blue in found}
        if len(colours) > MOST_COLOURS:
            raise DataError(
                f"{path}: over {MOST_COLOURS} colours in the masks up to here, "
                "expected one a class; were they blurred or saved as JPEG?"
            )
    # Colours of VOC's colour map are in its order.
    order = {colour: label for label, colour in enumerate(voc_colours(256))}
    ordered = sorted(colours, key=lambda colour: (order.get(colour, 256), colour))
    return [
        "decode: rgb",
        "# Give the classes their names. "
        "Move a colour that is not to be learned to the list `ignore_colours: [[r, g, b]]`.",
        "classes:",
        *(f"  class{number}: {list(colour)}" for number, colour in enumerate(ordered)),
    ]


def _by_id(paths: list[Path], decode: str) -> list[str]:
    found: set[int] = set()
    for path in track(paths, "looking at masks", len(paths)):
        found |= set(count_ids(read_ids(path)))
    # 255 beside other ids is nearly always void; alone with 0 it is a foreground.
    void = 255 in found and len(found) > 2
    ids = sorted(found - {255} if void else found)
    head = [
        f"ignore: 255  # {'a guess: the masks hold it' if void else 'the masks do not hold it'}",
        "# Give the classes their names.",
    ]
    # A gap may be a rare class; ids that are mostly gaps are another numbering.
    if 2 * len(ids) > max(ids) + 1 and max(ids) < 255:
        names = [
            f"  class{label}: {list(colour)}{'' if label in found else '  # not seen'}"
            for label, colour in enumerate(voc_colours(max(ids) + 1))
        ]
        return [f"decode: {decode}", *head, "classes:", *names]
    if len(ids) > MOST_COLOURS:
        raise DataError(
            f"{paths[0].parent}: over {MOST_COLOURS} ids in the masks, expected one a class; "
            "are they instances?"
        )
    table = ", ".join(f"{label}: {number}" for number, label in enumerate(ids))
    colours = zip(ids, voc_colours(len(ids)), strict=True)
    return [
        "decode: remap",
        f"remap: {{{table}{', 255: 255' if void else ''}}}",
        *head,
        "classes:",
        *(f"  id{label}: {list(colour)}" for label, colour in colours),
    ]
