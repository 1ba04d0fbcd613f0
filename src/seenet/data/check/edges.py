"""Compare edges of masks with those of pictures: whether the two belong together."""

import numpy as np


def contrast_at_edges(picture: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean change of a picture where its mask changes, over its mean change anywhere."""
    grey = picture.mean(2)
    steps = [
        (np.abs(np.diff(grey, axis=axis)), edge)
        for axis, edge in enumerate(_edges(mask.astype(np.int64)))
    ]
    at_edges = sum(float(change[edge].sum()) for change, edge in steps)
    edges = sum(int(edge.sum()) for _, edge in steps)
    overall = sum(float(change.mean()) for change, _ in steps) / 2
    return at_edges / max(1, edges) / max(overall, 1e-6)


def meets(picture: np.ndarray, mask: np.ndarray) -> bool | None:
    """Return whether a picture changes more at its mask's edges than at those of the mirrored mask.

    Args:
        picture: H x W x C uint8.
        mask: H x W.

    Returns:
        None if both change alike, as where there is no edge.
    """
    own, mirrored = 0.0, 0.0
    for axis, edge in enumerate(_edges(mask)):
        own += _change(picture, edge, axis)
        mirrored += _change(picture, edge[:, ::-1], axis)
    return None if own == mirrored else own > mirrored


def _edges(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where a pixel differs from that below, and from that on the right."""
    return mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]


def _change(picture: np.ndarray, edge: np.ndarray, axis: int) -> float:
    """Return the sum of a picture's changes over the edges along an axis."""
    rows, columns = np.nonzero(edge)
    first = picture[rows, columns].astype(np.int16)
    second = picture[rows + (axis == 0), columns + (axis == 1)]
    return float(np.abs(second - first).sum())
