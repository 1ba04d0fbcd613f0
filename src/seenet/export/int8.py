"""Eight-bit weights and activations, calibrated on pictures of the user's."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from seenet.core.errors import UsageError

FEWEST = 16
"""Pictures under which ranges of activations say little; the authors of NNCF take 300."""
MOST = 300


def check_count(count: int) -> None:
    """UsageError for fewer pictures than `FEWEST`."""
    if count < FEWEST:
        raise UsageError(f"--int8: found {count} pictures to calibrate on, expected at least {FEWEST} of what it will see; give --images")


def quantize(model: Any, pictures: Sequence[np.ndarray]) -> Any:
    """An `openvino.Model` or `onnx.ModelProto` in INT8, by NNCF's post-training quantisation; pictures are H x W x C uint8."""
    # Without this it reports its use to its makers, unasked.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    data = nncf.Dataset(list(pictures[:MOST]), lambda picture: {"images": picture[None]})
    return nncf.quantize(model, data, subset_size=min(len(pictures), MOST))
