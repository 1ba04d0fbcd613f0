"""A first `seenet.yaml` for a folder of pictures and masks."""

from pathlib import Path

import numpy as np
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.files import write_text
from seenet.core.images import read_colours, read_ids
from seenet.core.labels import voc_colours
from seenet.data.folder import FILE, by_stem

LOOKED_AT = 50
MOST_COLOURS = 256


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
    found = {entry.name: by_stem(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()}
    images, masks, suffix = _pair({name: files for name, files in found.items() if files}, folder)
    paths = [found[masks][stem + suffix] for stem in list(found[images])[:LOOKED_AT] if stem + suffix in found[masks]]
    head = (
        [f"images: {images}", f"masks: {masks}"]
        + ([f"mask_suffix: {suffix}"] if suffix else [])
        + ["val: 0.2  # this share, chosen by a hash of the names"]
    )
    return "\n".join([*head, *_classes(paths)]) + "\n"


def _pair(found: dict[str, dict[str, Path]], folder: Path) -> tuple[str, str, str]:
    """Names of the folders of pictures and masks, and what mask stems have behind."""
    best: tuple[int, str, str, str] = (0, "", "", "")
    for images, pictures in found.items():
        for masks, others in found.items():
            for suffix in ("", "_mask", "_label", "_labels", "_gt", "_seg", "_segmentation"):
                count = sum(stem + suffix in others for stem in pictures)
                if (
                    images != masks
                    and count > best[0]
                    and _looks_like_mask(next(iter(others.values())))
                    and not _looks_like_mask(next(iter(pictures.values())))
                ):
                    best = (count, images, masks, suffix)
    if not best[0]:
        raise DataError(
            f"{folder}: found no folder of pictures beside a folder of masks with the same names; expected images/a.jpg and masks/a.png"
        )
    return best[1:]


def _looks_like_mask(path: Path) -> bool:
    with Image.open(path) as image:
        if image.mode in {"P", "1", "I", "I;16", "I;16B"}:
            return True
        return image.format != "JPEG" and len(np.unique(np.asarray(image).reshape(-1, len(image.getbands())), axis=0)) <= MOST_COLOURS


def _classes(paths: list[Path]) -> list[str]:
    with Image.open(paths[0]) as image:
        mode = image.mode
    if mode in {"RGB", "RGBA"}:
        colours = np.unique(np.concatenate([np.unique(read_colours(path).reshape(-1, 3), axis=0) for path in paths]), axis=0)
        return ["decode: rgb", "classes:", *(f"  class{number}: {colour}" for number, colour in enumerate(colours.tolist()))]
    ids = sorted(set().union(*(set(np.unique(read_ids(path)).tolist()) for path in paths)))
    void = [label for label in ids if label == 255 and len(ids) > 2]
    ids = [label for label in ids if label not in void]
    names = [f"  class{label}: {list(colour)}" for label, colour in enumerate(voc_colours(max(ids) + 1))]
    if ids == list(range(len(ids))):
        return [f"decode: {'palette' if mode == 'P' else 'index'}", "ignore: 255", "classes:", *names]
    table = ", ".join(f"{label}: {number}" for number, label in enumerate(ids))
    named = [f"  id{label}: {list(colour)}" for label, colour in zip(ids, voc_colours(len(ids)), strict=True)]
    return ["decode: remap", f"remap: {{{table}{', 255: 255' if void else ''}}}", "ignore: 255", "classes:", *named]
