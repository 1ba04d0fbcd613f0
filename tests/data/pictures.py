"""Files of data sets, as small as may be."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, mask: np.ndarray | None = None, size: tuple[int, int] = (6, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mask is None:
        Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    else:
        Image.fromarray(mask).save(path)
