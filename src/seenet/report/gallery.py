"""Pictures with their masks on pages: of a data set (`seenet data show`), of the demo, and those of a run's report."""

from collections.abc import Iterable
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
from seenet.data.transforms import JointTransform
from seenet.evaluation.pictures import error_map
from seenet.model.segmenter import Normalization
from seenet.model.weights import backbone_normalization
from seenet.prediction.base import BasePredictor
from seenet.prediction.colours import blend, colourize
from seenet.report.html import number, percent, photograph, png, render, shrunk

DRAWS = 2
"""Transformed samples shown of each picture: those of the first epochs."""


@dataclass(frozen=True)
class GalleryRow:
    """One picture in several views: (label, H x W x 3 uint8) each; `mask`, where given, adds the shares of its classes."""

    caption: str
    pictures: list[tuple[str, np.ndarray]]
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class EncodedRow:
    """A row as the templates take it."""

    caption: str
    pictures: list[tuple[str, str]]
    shares: list[tuple[str, tuple[int, int, int], str]]


def write_gallery(
    path: Path, title: str, intro: str, rows: Iterable[GalleryRow], labels: LabelSet, links: Iterable[tuple[str, str]] = ()
) -> None:
    """Write `path`, one HTML file with everything in it; rows are taken one at a time, and only their JPEGs kept.

    `links`: (text, address relative to the page) that stand behind the intro.
    """
    encoded = [
        EncodedRow(row.caption, [(label, photograph(picture)) for label, picture in row.pictures], class_shares(row.mask, labels))
        for row in rows
    ]
    render(path, "gallery.html.j2", title=title, intro=intro, rows=encoded, labels=labels, links=list(links))


def class_shares(mask: np.ndarray | None, labels: LabelSet) -> list[tuple[str, tuple[int, int, int], str]]:
    """List (class, colour, percent of all pixels) of the classes in a mask, the largest first, the ignored pixels last."""
    if mask is None or not mask.size:
        return []
    ids, counts = np.unique(mask, return_counts=True)
    found = sorted(zip(ids.tolist(), counts.tolist(), strict=True), key=lambda entry: (entry[0] == labels.ignore, -entry[1]))
    shares = []
    for index, count in found:
        if index == labels.ignore:
            shares.append(("ignored", (255, 255, 255), percent(count / mask.size)))
        elif 0 <= index < labels.num_classes:
            shares.append((labels.classes[index], labels.colours[index], percent(count / mask.size)))
    return shares


def data_page(recipe: Recipe, out: Path, count: int = 8, *, overwrite: bool = False) -> Path:
    """Write OUT/index.html: samples of the train split as they are, and as the network sees them in its first epochs.

    Raises DataError where a page is there already (without `overwrite`); DataError, UsageError as `open_split` and the transforms do.
    """
    path = out / "index.html"
    check_free([path], overwrite=overwrite)
    split = open_split(recipe.data, recipe.data.train)
    # Without a network, and without a download.
    normalization = backbone_normalization(recipe.model.backbone, recipe.model.weights)
    samples = TrainingSet(
        split,
        JointTransform(recipe.transforms, normalization.mean, normalization.std, split.labels.ignore, classes=split.labels.num_classes),
        recipe.seed,
    )
    chosen = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int)).tolist()

    def rows() -> Iterable[GalleryRow]:
        for index in track(chosen, f"pictures of {split.name}", len(chosen)):
            image, mask = split.read(index)
            pictures = [("picture", image), ("with its mask", striped(blend(image, mask, split.labels), mask, split.labels))]
            for epoch in range(DRAWS):
                pixels, ids, _ = samples[Draw(epoch, index)]
                seen, seen_mask = restored(pixels, normalization), ids.numpy()
                pictures.append((f"seen in epoch {epoch + 1}", seen))
                pictures.append(("its labels", striped(colourize(seen_mask, split.labels), seen_mask, split.labels)))
            size = f"{image.shape[1]} x {image.shape[0]} pixels"
            yield GalleryRow(f"{split.key(index)}, {size}", pictures, mask)

    transforms = recipe.transforms
    intro = (
        f"{len(chosen)} of {number(len(split))} pictures of {split.name}, evenly spread. After each picture with its mask stand the "
        f"samples that training draws from it in its first {DRAWS} epochs at seed {recipe.seed}: flip {transforms.flip:g}, "
        f"scale {transforms.scale[0]:g} to {transforms.scale[1]:g}, rotation {transforms.rotation:g} degrees, "
        f"colour jitter {transforms.jitter:g}, crop {transforms.crop[1]} x {transforms.crop[0]} (width x height). "
        "Padding, zero to the network, has the mean colour here; stripes are ignored."
    )
    write_gallery(path, f"What the network sees: {split.name}", intro, rows(), split.labels)
    return path


def restored(pixels: Tensor, normalization: Normalization) -> np.ndarray:
    """Undo the normalisation: 3 x h x w floats to h x w x 3 uint8."""
    values = pixels.permute(1, 2, 0).numpy() * np.array(normalization.std) + np.array(normalization.mean)
    picture: np.ndarray = np.clip(values * 255 + 0.5, 0, 255).astype(np.uint8)
    return picture


def striped(picture: np.ndarray, mask: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Draw diagonal stripes where the mask is ignored, so that it can be told from any class."""
    height, width = mask.shape
    band = max(3, max(height, width) // 80)
    stripes = ((np.arange(height)[:, None] + np.arange(width)[None]) // band) % 2
    ignored = mask == labels.ignore
    out = picture.copy()
    out[ignored] = np.where(stripes[ignored], 184, 255).astype(np.uint8)[:, None]
    return out


@dataclass(frozen=True)
class Group:
    """Pictures under one heading."""

    title: str
    note: str
    rows: list[EncodedRow]


def picture_groups(predictor: BasePredictor, split: Split, result: dict[str, Any] | None, count: int) -> list[Group]:
    """Predict and encode the worst, the best and sample pictures, `count` of each; none stands there twice.

    `result` is the content of val.json for this very split; without it there are samples alone, and no scores.
    """
    places = {split.key(index): index for index in range(len(split))}
    scores = {entry["key"]: entry["miou"] for entry in result["per_image"] if entry["key"] in places} if result else {}
    ranked = sorted((key for key, score in scores.items() if score is not None), key=lambda key: (scores[key], places[key]))
    worst = ranked[:count]
    best = [key for key in ranked[::-1][:count] if key not in worst]
    rest = [key for key in places if key not in worst and key not in best]
    spread = np.unique(np.linspace(0, len(rest) - 1, min(count, len(rest))).round().astype(int))
    chosen = {
        "Worst pictures": ("The lowest mIoU over a picture's own classes, the lowest first. Small or rare classes weigh much here.", worst),
        "Best pictures": ("The highest mIoU over a picture's own classes, the highest first.", best),
        "Samples": (f"Evenly spread over {split.name}, chosen without a look at any score.", [rest[place] for place in spread]),
    }
    wanted = [(title, key) for title, (_, keys) in chosen.items() for key in keys]
    rows: dict[str, list[EncodedRow]] = {title: [] for title in chosen}
    for title, key in track(wanted, f"pictures of {split.name}", len(wanted)):
        rows[title].append(_row(predictor, split, places[key], _caption(key, scores)))
    return [Group(title, note, rows[title]) for title, (note, _) in chosen.items() if rows[title]]


def _caption(key: str, scores: dict[str, float | None]) -> str:
    return f"{key}, mIoU {percent(scores[key], 'none: nothing is scored')}" if key in scores else key


def _row(predictor: BasePredictor, split: Split, index: int, caption: str) -> EncodedRow:
    image, truth = split.read(index)
    mask = predictor.mask(image, truth.shape[:2])
    labels = split.labels
    scored = truth != labels.ignore
    wrong = float((mask != truth)[scored].mean()) if scored.any() else None
    small, found = shrunk(truth), shrunk(mask)
    pictures = [
        ("picture", photograph(image)),
        ("truth", png(striped(colourize(small, labels), small, labels))),
        ("prediction", png(colourize(found, labels))),
        (f"errors, {percent(wrong, 'nothing is scored')}", png(error_map(small, found, labels))),
    ]
    return EncodedRow(caption, pictures, [])
