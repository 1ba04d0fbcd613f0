"""The result of one picture: its mask, probabilities and overlay, made from class scores.

Scores are torch tensors on their device, or numpy arrays of an exported model. Torch is imported
for tensors only.
"""

import io
from collections.abc import Iterable
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from seenet.core.errors import DataError, NotFiniteError, UsageError
from seenet.core.files import replacing
from seenet.core.images import IMAGE_SUFFIXES, as_rgb, write_mask
from seenet.core.labels import LabelSet

if TYPE_CHECKING:
    from torch import Tensor

Scores: TypeAlias = "Tensor | np.ndarray"
"""K x h x w float32: logits, or logs of probabilities."""

NOT_FINITE = (
    "the network's scores are NaN or infinite; its weights are damaged, or use --precision fp32"
)

MAX_JPEG_SIDE = 65500
"""Pixels that libjpeg takes along a side; a larger overlay is reduced."""

_FILE_SUFFIXES = IMAGE_SUFFIXES | {".npy", ".npz", ".pdf", ".svg"}
SUFFIXES = {"masks": ".png", "overlays": ".jpg", "probabilities": ".npz"}


class Result:
    """A segmented picture; a notebook displays its overlay."""

    def __init__(
        self,
        mask: np.ndarray,
        labels: LabelSet,
        image: np.ndarray,
        scores: "Scores | None",
        name: str,
    ) -> None:
        self.mask = mask
        """Class ids, H x W uint8 (uint16 over 256 classes)."""
        self.labels = labels
        self.image = image
        """The picture, H x W x 3 uint8."""
        self.name = name
        """Stem of the files that `save` writes."""
        self._scores = scores

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Return the probabilities, K x H x W float32, which sum to 1 over K.

        Raises:
            UsageError: The scores were not kept.
        """
        if self._scores is None:
            raise UsageError(
                f"{self.name}: its scores were not kept; ask for the result with probabilities=True"
            )
        return to_probabilities(self._scores)

    def overlay(self, alpha: float = 0.5) -> Image.Image:
        """Draw the classes' colours over the picture, with opacity `alpha`."""
        return Image.fromarray(blend(self.image, self.mask, self.labels, alpha))

    def save(
        self, folder: str | Path, *, probabilities: bool = False, overwrite: bool = False
    ) -> list[Path]:
        """Write FOLDER/masks/NAME.png, FOLDER/overlays/NAME.jpg and, if asked,
        FOLDER/probabilities/NAME.npz (float16).

        Returns:
            The paths of the files.

        Raises:
            DataError: A file exists already, and `overwrite` is not given.
            UsageError: `folder` is a file, or has the suffix of a file.
        """
        folder = Path(folder)
        if not folder.is_dir() and (folder.exists() or folder.suffix.lower() in _FILE_SUFFIXES):
            raise UsageError(
                f"{folder}: the name of a file, expected a folder for the masks and overlays; "
                "give another name"
            )
        paths = output_paths(folder, self.name, probabilities)
        existing = [path for path in paths if path.exists()]
        if existing and not overwrite:
            raise DataError(f"{existing[0]}: exists already; use overwrite=True or another folder")
        for path in paths:
            with replacing(path) as temporary:
                self.write(path.parent.name, temporary)
        return paths

    def write(self, kind: str, path: Path) -> None:
        """Write one of the result's files.

        Args:
            kind: `masks` (PNG with palette), `overlays` (JPEG) or `probabilities` (npz, float16).
            path: The file.
        """
        if kind == "masks":
            write_mask(path, self.mask, self.labels)
        elif kind == "overlays":
            overlay = self.overlay()
            overlay.thumbnail((MAX_JPEG_SIDE, MAX_JPEG_SIDE))
            overlay.save(path, format="jpeg", quality=90)
        else:
            with path.open("wb") as stream:
                np.savez_compressed(
                    stream,
                    probabilities=self.probabilities.astype(np.float16),
                    classes=np.array(self.labels.classes),
                )

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.overlay().save(stream, format="png")
        return stream.getvalue()

    def __repr__(self) -> str:
        ids, counts = np.unique(self.mask, return_counts=True)
        shares = ", ".join(
            f"{self.labels.classes[ids[i]]} {100 * counts[i] / self.mask.size:.0f} %"
            for i in np.argsort(-counts)[:5]
        )
        return f"Result({self.name}, {self.mask.shape[0]}x{self.mask.shape[1]}: {shares})"


def output_paths(
    folder: Path, name: str, probabilities: bool, *, windows: bool = False
) -> list[Path]:
    """Return the paths of one result's files.

    Args:
        folder: The folder of all results.
        name: Stem of the files; it may hold subfolders and dots.
        probabilities: Include their file.
        windows: The picture is segmented by windows: its mask is a TIFF.
    """
    suffixes = {**SUFFIXES, "masks": ".tif"} if windows else SUFFIXES
    return [
        folder / kind / f"{name}{suffix}"
        for kind, suffix in suffixes.items()
        if probabilities or kind != "probabilities"
    ]


def colourize(mask: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Map H x W ids to colours, H x W x 3 uint8: white where ignored, black for unknown ids."""
    if mask.dtype == np.uint8:
        return np.take(labels.palette(), mask, axis=0)
    table = np.zeros((labels.num_classes + 2, 3), np.uint8)
    table[: labels.num_classes] = np.array(labels.colours, np.uint8).reshape(-1, 3)
    table[labels.num_classes] = 255
    ids = np.asarray(mask, np.int64)
    rows = np.where((ids >= 0) & (ids < labels.num_classes), ids, labels.num_classes + 1)
    rows[ids == labels.ignore] = labels.num_classes
    return np.take(table, rows, axis=0)


def blend(image: np.ndarray, mask: np.ndarray, labels: LabelSet, alpha: float = 0.5) -> np.ndarray:
    """Draw the classes' colours over an H x W x C uint8 picture with opacity `alpha`.

    Ignored pixels stay as they are. Other channels than RGB are shown as by `core.images.as_rgb`.
    """
    image = as_rgb(image)
    weight = round(alpha * 256)
    # Sixteen bits hold 255 * 256, so that large pictures need no floats.
    mixed = image.astype(np.uint16) * (256 - weight)
    mixed += colourize(mask, labels).astype(np.uint16) * weight
    out = (mixed >> 8).astype(np.uint8)
    ignored = mask == labels.ignore
    out[ignored] = image[ignored]
    return out


def stack_chunks(row_chunks: Iterable[Scores], height: int) -> Scores:
    """Join row chunks K x r x w, from the top, into one K x height x w.

    There must be at least one, and together they must have `height` rows. A first chunk that has
    them all is returned itself, not copied.
    """
    chunks = iter(row_chunks)
    first: Any = next(chunks)
    if first.shape[1] == height:
        return first  # type: ignore[no-any-return]
    # Filled chunk by chunk: joined at the end, all scores would be in memory twice.
    make = np.empty if isinstance(first, np.ndarray) else first.new_empty
    whole: Any = make((first.shape[0], height, first.shape[2]), dtype=first.dtype)
    top = 0
    for chunk in chain([first], chunks):
        bottom = top + chunk.shape[1]
        whole[:, top:bottom] = chunk
        top = bottom
    return whole  # type: ignore[no-any-return]


def to_mask(scores: Scores) -> np.ndarray:
    """Return the class of each pixel; the lower id where two scores are equal.

    Returns:
        h x w uint8 (uint16 over 256 classes).

    Raises:
        NotFiniteError: A best score is NaN or infinite.
    """
    small = len(scores) <= 256
    if isinstance(scores, np.ndarray):
        # numpy's argmax takes the first NaN for the largest, as torch's max does.
        ids = scores.argmax(0)
        check_finite(np.take_along_axis(scores, ids[None], 0))
    else:
        best, index = scores.detach().max(0)
        check_finite(best)
        ids = (index.byte() if small else index).cpu().numpy()
    return np.asarray(ids, np.uint8 if small else np.uint16)


def check_finite(best: Scores) -> None:
    """Raise NotFiniteError if a best score is NaN or infinite."""
    finite = np.isfinite(best) if isinstance(best, np.ndarray) else best.isfinite()
    if not finite.all():
        raise NotFiniteError(NOT_FINITE)


def to_probabilities(scores: Scores) -> np.ndarray:
    """Return the softmax over K of K x h x w scores, float32, in main memory."""
    if isinstance(scores, np.ndarray):
        shifted: np.ndarray = scores - scores.max(0)
        np.exp(shifted, out=shifted)
        shifted /= shifted.sum(0)
        return shifted
    return np.asarray(scores.softmax(0).cpu())


def negative_log_likelihood(scores: Scores, truth: np.ndarray, ignore: int) -> float:
    """Return the summed cross entropy, in nats, over the pixels that are not `ignore`.

    Args:
        scores: K x h x w.
        truth: Class ids, h x w.
        ignore: The ignored id.
    """
    if isinstance(scores, np.ndarray):
        from scipy.special import log_softmax

        valid = truth != ignore
        logs = log_softmax(scores[:, valid], axis=0)
        true = np.take_along_axis(logs, truth[valid].astype(np.int64)[None], 0)
        return -float(true.sum(dtype=np.float64))
    import torch
    from torch.nn import functional as F

    target = torch.from_numpy(truth.astype(np.int64)).to(scores.device)
    return float(F.cross_entropy(scores[None], target[None], ignore_index=ignore, reduction="sum"))
