"""Galleries of images with masks: `seenet data show`, the demo, and the images of a report."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from seenet.core.files import check_free
from seenet.core.labels import LabelSet
from seenet.core.progress import track
from seenet.core.settings import Recipe
from seenet.data import Split, open_split
from seenet.data.sampling import Draw, TrainingSet
from seenet.data.split import normalization_of, reader_of
from seenet.data.transforms import JointTransform
from seenet.evaluation.pictures import error_map
from seenet.model.segmenter import Normalization
from seenet.model.weights import backbone_normalization
from seenet.prediction.base import BasePredictor
from seenet.prediction.result import blend, colourize
from seenet.report.html import number, percent, photograph, png, render, shrunk, spread

EPOCHS = 2
"""First epochs whose samples `data_page` shows."""


@dataclass(frozen=True)
class GalleryRow:
    """Views of an image, (label, H x W x 3 uint8) each; a `mask` adds the shares of its classes."""

    caption: str
    images: list[tuple[str, np.ndarray]]
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class EncodedRow:
    """A row for the templates: images as (label, data URI), shares as (class, colour, percent)."""

    caption: str
    images: list[tuple[str, str]]
    shares: list[tuple[str, tuple[int, int, int], str]]


def write_gallery(
    path: Path,
    title: str,
    intro: str,
    rows: Iterable[GalleryRow],
    labels: LabelSet,
    links: Iterable[tuple[str, str]] = (),
) -> None:
    """Write a page as one HTML file.

    Args:
        rows: read one at a time; only their JPEGs are kept.
        links: (text, address relative to the page), shown after the intro.
    """
    encoded = [
        EncodedRow(
            row.caption,
            [(label, photograph(image)) for label, image in row.images],
            class_shares(row.mask, labels),
        )
        for row in rows
    ]
    render(
        path,
        "gallery.html.j2",
        title=title,
        intro=intro,
        rows=encoded,
        labels=labels,
        links=list(links),
    )


def class_shares(
    mask: np.ndarray | None, labels: LabelSet
) -> list[tuple[str, tuple[int, int, int], str]]:
    """List (class, colour, percent of all pixels) of a mask, largest first, ignored pixels last."""
    if mask is None or not mask.size:
        return []
    ids, counts = np.unique(mask, return_counts=True)
    named = {labels.ignore: ("ignored", (255, 255, 255))}
    named |= dict(enumerate(zip(labels.classes, labels.colours, strict=True)))
    found = sorted(
        zip(ids.tolist(), counts.tolist(), strict=True),
        key=lambda entry: (entry[0] == labels.ignore, -entry[1]),
    )
    return [(*named[id_], percent(count / mask.size)) for id_, count in found if id_ in named]


def data_page(recipe: Recipe, out: Path, count: int = 8, *, overwrite: bool = False) -> Path:
    """Write OUT/index.html: images of the train split, and their samples in the first epochs.

    Raises:
        DataError: the page exists (without `overwrite`), or the data cannot be read.
        UsageError: wrong settings of data, backbone or transforms.
    """
    path = out / "index.html"
    check_free([path], overwrite=overwrite)
    split = open_split(recipe.data, recipe.data.train)
    # Needs no network and downloads no weights.
    own, channels = normalization_of(split), reader_of(split).count
    normalization = (
        Normalization(*own)
        if own
        else backbone_normalization(recipe.model.backbone, recipe.model.weights, channels)
    )
    transforms = recipe.transforms
    joint = JointTransform(
        transforms,
        normalization.mean,
        normalization.std,
        split.labels.ignore,
        classes=split.labels.num_classes,
    )
    samples = TrainingSet(split, joint, recipe.seed)
    chosen = spread(len(split), count)

    def rows() -> Iterator[GalleryRow]:
        for index in track(chosen, f"images of {split.name}", len(chosen)):
            image, mask = split.read(index)
            views = [
                ("image", image),
                ("with its mask", striped(blend(image, mask, split.labels), mask, split.labels)),
            ]
            for epoch in range(EPOCHS):
                pixels, label, _ = samples[Draw(epoch, index)]
                ids = label.numpy()
                drawn = striped(colourize(ids, split.labels), ids, split.labels)
                views.append((f"sample in epoch {epoch + 1}", denormalized(pixels, normalization)))
                views.append(("its labels", drawn))
            size = f"{image.shape[1]} x {image.shape[0]} pixels"
            yield GalleryRow(f"{split.key(index)}, {size}", views, mask)

    intro = (
        f"{len(chosen)} of {number(len(split))} images of {split.name}, evenly spread. Each row "
        "shows an image, its mask, and the samples that training draws from it in its first "
        f"{EPOCHS} epochs with seed {recipe.seed}: flip {transforms.flip:g}, scale "
        f"{transforms.scale[0]:g} to {transforms.scale[1]:g}, rotation {transforms.rotation:g} "
        f"degrees, colour jitter {transforms.jitter:g}, crop {transforms.crop[1]} x "
        f"{transforms.crop[0]} (width x height). Padding is zero for the network, which is the "
        "mean colour here. Stripes are ignored pixels."
    )
    write_gallery(path, f"What the network sees: {split.name}", intro, rows(), split.labels)
    return path


def denormalized(pixels: Tensor, normalization: Normalization) -> np.ndarray:
    """Undo the normalisation: C x h x w floats to h x w x C uint8."""
    values = pixels.permute(1, 2, 0).numpy() * normalization.std + np.array(normalization.mean)
    return np.asarray(np.clip(values * 255 + 0.5, 0, 255).astype(np.uint8))


def striped(image: np.ndarray, mask: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Return the image with diagonal stripes on ignored pixels, unlike any class."""
    height, width = mask.shape
    band = max(3, max(height, width) // 80)
    stripes = ((np.arange(height)[:, None] + np.arange(width)[None]) // band) % 2
    ignored = mask == labels.ignore
    out = image.copy()
    out[ignored] = np.where(stripes[ignored], 184, 255).astype(np.uint8)[:, None]
    return out


@dataclass(frozen=True)
class Group:
    """Images of a report under one heading."""

    title: str
    note: str
    rows: list[EncodedRow]


def image_groups(
    predictor: BasePredictor, split: Split, result: dict[str, Any] | None, count: int
) -> list[Group]:
    """Predict and encode the worst, the best and sample images, up to `count` each, none twice.

    Args:
        result: content of val.json for this split; None: samples only, without scores.
    """
    places = {split.key(index): index for index in range(len(split))}
    per_image = result["per_image"] if result else []
    scores = {entry["key"]: entry["miou"] for entry in per_image if entry["key"] in places}
    ranked = sorted(
        (key for key, score in scores.items() if score is not None),
        key=lambda key: (scores[key], places[key]),
    )
    worst = ranked[:count]
    best = [key for key in ranked[::-1][:count] if key not in worst]
    rest = [key for key in places if key not in worst and key not in best]
    chosen = {
        "Worst images": (
            "Lowest mIoU over the image's own classes, lowest first. "
            "Small and rare classes weigh much here.",
            worst,
        ),
        "Best images": ("Highest mIoU over the image's own classes, highest first.", best),
        "Samples": (
            f"Evenly spread over {split.name}, chosen without regard to scores.",
            [rest[place] for place in spread(len(rest), count)],
        ),
    }
    keys = [(title, key) for title, (_, keys) in chosen.items() for key in keys]
    rows: dict[str, list[EncodedRow]] = {title: [] for title in chosen}
    for title, key in track(keys, f"images of {split.name}", len(keys)):
        caption = key
        if key in scores:
            caption += f", mIoU {percent(scores[key], 'none: nothing is scored')}"
        rows[title].append(_row(predictor, split, places[key], caption))
    return [Group(title, note, rows[title]) for title, (note, _) in chosen.items() if rows[title]]


def _row(predictor: BasePredictor, split: Split, index: int, caption: str) -> EncodedRow:
    image, truth = split.read(index)
    labels, mask = split.labels, predictor.mask(image, truth.shape[:2])
    scored = truth != labels.ignore
    wrong = float((mask != truth)[scored].mean()) if scored.any() else None
    small, small_mask = shrunk(truth), shrunk(mask)
    errors = png(error_map(small, small_mask, labels))
    views = [
        ("image", photograph(image)),
        ("truth", png(striped(colourize(small, labels), small, labels))),
        ("prediction", png(colourize(small_mask, labels))),
        (f"errors, {percent(wrong, 'nothing is scored')}", errors),
    ]
    return EncodedRow(caption, views, [])
