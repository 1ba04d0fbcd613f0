"""What the predictor says of one picture."""

import io
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.core.files import replacing
from seenet.core.images import IMAGE_SUFFIXES, write_mask
from seenet.core.labels import LabelSet
from seenet.prediction.colours import blend
from seenet.prediction.scores import Scores, to_probabilities

LARGEST_JPEG = 65500
"""Pixels that libjpeg takes along a side; an overlay of more is made smaller."""


class Result:
    """A segmented picture; shows itself as an overlay in a notebook."""

    def __init__(self, mask: np.ndarray, labels: LabelSet, image: np.ndarray, scores: "Scores | None", name: str) -> None:
        self.mask = mask
        """H x W class ids, uint8 (uint16 over 256 classes)."""
        self.labels = labels
        self.image = image
        """The picture, H x W x 3 uint8."""
        self.name = name
        """Stem of the files that `save` writes."""
        self._scores = scores

    @cached_property
    def probabilities(self) -> np.ndarray:
        """K x H x W float32, their sum over K is 1. UsageError where they were not asked for."""
        if self._scores is None:
            raise UsageError(f"{self.name}: its scores were not kept; ask for the result with probabilities=True")
        return to_probabilities(self._scores)

    def overlay(self, alpha: float = 0.5) -> Image.Image:
        """The classes' colours over the picture, with opacity `alpha`."""
        return Image.fromarray(blend(self.image, self.mask, self.labels, alpha))

    def save(self, folder: str | Path, *, probabilities: bool = False, overwrite: bool = False) -> list[Path]:
        """Write FOLDER/masks/NAME.png, FOLDER/overlays/NAME.jpg and, if asked, FOLDER/probabilities/NAME.npz (float16).

        Returns their paths. Raises DataError where one is there already, unless `overwrite`; UsageError for the name of a file.
        """
        if not Path(folder).is_dir() and (Path(folder).exists() or Path(folder).suffix.lower() in _OF_FILES):
            raise UsageError(f"{folder}: the name of a file, expected a folder, in which masks and overlays get folders; name one")
        paths = output_paths(Path(folder), self.name, probabilities)
        there = [path for path in paths if path.exists()]
        if there and not overwrite:
            raise DataError(f"{there[0]}: exists already; use overwrite=True or another folder")
        for path in paths:
            with replacing(path) as temporary:
                self.write(path.parent.name, temporary)
        return paths

    def write(self, kind: str, path: Path) -> None:
        """Write one of `masks` (PNG with palette), `overlays` (JPEG), `probabilities` (compressed npz, float16) to
        `path`.
        """
        if kind == "masks":
            write_mask(path, self.mask, self.labels)
        elif kind == "overlays":
            overlay = self.overlay()
            overlay.thumbnail((LARGEST_JPEG, LARGEST_JPEG))
            overlay.save(path, format="jpeg", quality=90)
        else:
            with path.open("wb") as stream:
                np.savez_compressed(stream, probabilities=self.probabilities.astype(np.float16), classes=np.array(self.labels.classes))

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.overlay().save(stream, format="png")
        return stream.getvalue()

    def __repr__(self) -> str:
        ids, counts = np.unique(self.mask, return_counts=True)
        order = np.argsort(-counts)[:5]
        shares = ", ".join(f"{self.labels.classes[ids[i]]} {100 * counts[i] / self.mask.size:.0f} %" for i in order)
        return f"Result({self.name}, {self.mask.shape[0]}x{self.mask.shape[1]}: {shares})"


_OF_FILES = IMAGE_SUFFIXES | {".npy", ".npz", ".pdf", ".svg"}
SUFFIXES = {"masks": ".png", "overlays": ".jpg", "probabilities": ".npz"}


def output_paths(folder: Path, name: str, probabilities: bool, *, windows: bool = False) -> list[Path]:
    """The files of one result: `name` may hold subfolders and dots. The mask of a picture read by windows is a TIFF."""
    suffixes = {**SUFFIXES, "masks": ".tif"} if windows else SUFFIXES
    return [folder / kind / f"{name}{suffix}" for kind, suffix in suffixes.items() if probabilities or kind != "probabilities"]
