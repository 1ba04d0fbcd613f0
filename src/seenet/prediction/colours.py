"""Masks as colours, alone and over the picture."""

import numpy as np

from seenet.core.labels import LabelSet


def colourize(mask: np.ndarray, labels: LabelSet) -> np.ndarray:
    """H x W ids -> H x W x 3 uint8: the classes' colours, white where ignored, black for an id that is neither."""
    if mask.dtype == np.uint8:
        table = labels.palette()
        # A set of more than 256 classes may hold ids that a byte cannot; those it can are in the palette.
        return np.take(table, mask, axis=0)
    table = np.zeros((labels.num_classes + 2, 3), np.uint8)
    table[: labels.num_classes] = np.array(labels.colours, np.uint8).reshape(-1, 3)
    table[labels.num_classes] = 255
    ids = np.asarray(mask, np.int64)
    rows = np.where((ids >= 0) & (ids < labels.num_classes), ids, labels.num_classes + 1)
    rows[ids == labels.ignore] = labels.num_classes
    return np.take(table, rows, axis=0)


def blend(image: np.ndarray, mask: np.ndarray, labels: LabelSet, alpha: float = 0.5) -> np.ndarray:
    """H x W x 3 uint8: the classes' colours over the picture with opacity `alpha`; ignored pixels show the picture as
    it is.
    """
    weight = round(alpha * 256)
    # Sixteen bits hold 255 * 256, so that large pictures need no floats.
    mixed = image.astype(np.uint16) * (256 - weight)
    mixed += colourize(mask, labels).astype(np.uint16) * weight
    out = (mixed >> 8).astype(np.uint8)
    ignored = mask == labels.ignore
    out[ignored] = image[ignored]
    return out
