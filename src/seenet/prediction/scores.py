"""What class scores say, whichever runtime made them: torch's tensors on their device, or numpy's arrays without torch."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from seenet.core.errors import NotFiniteError

if TYPE_CHECKING:
    from torch import Tensor

Scores: TypeAlias = "Tensor | np.ndarray"
"""K x h x w float32: logits, or logs of probabilities."""

NOT_FINITE = "the network's scores are NaN or infinite; its weights are damaged, or use --precision fp32"


def joined(stripes: Iterable[Scores], height: int) -> Scores:
    """Stripes K x r x w of the same scores, from the top, as one K x height x w."""
    whole: Any = None
    top = 0
    for stripe in stripes:
        classes, rows, width = stripe.shape
        if rows == height:
            return stripe
        if whole is None:
            shape = (classes, height, width)
            whole = np.empty(shape, np.float32) if isinstance(stripe, np.ndarray) else stripe.new_empty(shape)
        whole[:, top : top + rows] = stripe
        top += rows
    result: Scores = whole
    return result


def to_mask(scores: Scores) -> np.ndarray:
    """K x h x w scores -> h x w class ids, uint8 (uint16 over 256 classes); the lower id where two are equal.

    Raises NotFiniteError where a best score is NaN or infinite.
    """
    small = len(scores) <= 256
    if isinstance(scores, np.ndarray):
        # numpy's argmax takes the first NaN for the largest, as torch's max does.
        ids = scores.argmax(0)
        check_finite(np.take_along_axis(scores, ids[None], 0))
        mask: np.ndarray = ids.astype(np.uint8 if small else np.uint16)
        return mask
    import torch

    with torch.inference_mode():
        best, index = scores.max(0)
        if not torch.isfinite(best).all():
            raise NotFiniteError(NOT_FINITE)
        return np.asarray(index.to(torch.uint8 if small else torch.uint16).cpu())


def check_finite(best: np.ndarray) -> None:
    """NotFiniteError where a best score is NaN or infinite."""
    if not np.isfinite(best).all():
        raise NotFiniteError(NOT_FINITE)


def to_probabilities(scores: Scores) -> np.ndarray:
    """Softmax over K of K x h x w scores, float32, in main memory."""
    if isinstance(scores, np.ndarray):
        shifted: np.ndarray = scores - scores.max(0)
        np.exp(shifted, out=shifted)
        shifted /= shifted.sum(0)
        return shifted
    probabilities: np.ndarray = scores.softmax(0).cpu().numpy()
    return probabilities


def negative_log_likelihood(scores: Scores, truth: np.ndarray, ignore: int) -> float:
    """Sum over the pixels of an h x w label that are not `ignore`, nats."""
    if isinstance(scores, np.ndarray):
        valid = truth != ignore
        chosen = scores[:, valid]
        largest = chosen.max(0, initial=-np.inf)
        true = np.take_along_axis(chosen, truth[valid].astype(np.int64)[None], 0)[0]
        logs = np.log(np.exp(chosen - largest).sum(0))
        return float((largest - true + logs).sum(dtype=np.float64))
    import torch
    from torch.nn import functional as F

    target = torch.from_numpy(truth.astype(np.int64)).to(scores.device)
    return float(F.cross_entropy(scores[None], target[None], ignore_index=ignore, reduction="sum"))
