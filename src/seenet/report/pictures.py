"""The pictures of a report: predicted anew with the run's model, so that they show what it does."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from seenet.core.progress import track
from seenet.data import Split
from seenet.evaluation.pictures import error_map
from seenet.prediction.base import BasePredictor
from seenet.prediction.colours import colourize
from seenet.report.encode import percent, photograph, png, shrunk
from seenet.report.gallery import EncodedRow, striped


@dataclass(frozen=True)
class Group:
    """Pictures under one heading."""

    title: str
    note: str
    rows: list[EncodedRow]


def picture_groups(predictor: BasePredictor, split: Split, result: dict[str, Any] | None, count: int) -> list[Group]:
    """Worst, best and sample pictures, `count` of each (fewer where the split has fewer; none stands there twice).

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
