"""One figure for each picture of the user's: `seenet figure heat` and `attention`."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from seenet.core.errors import DataError, UsageError
from seenet.core.files import check_free
from seenet.core.images import read_image
from seenet.core.processor import lacks_memory
from seenet.core.progress import bar
from seenet.experiments.drawing import write_figure
from seenet.model.factory import unknown_parts
from seenet.model.files import find_model, read_options
from seenet.prediction.base import BasePredictor
from seenet.prediction.batch import PredictReport
from seenet.prediction.inputs import Input

log = logging.getLogger("seenet")


def with_stages(model: str | Path) -> Path:
    """The file of a model whose parts are known by name; UsageError for a network of `model.factory`."""
    path = find_model(model)
    factory = read_options(path).get("factory")
    if factory:
        raise UsageError(f"{path}: {unknown_parts(factory)}")
    return path


def draw_each(
    predictor: BasePredictor,
    pictures: Sequence[Input],
    out: Path,
    draw: Callable[[Input, np.ndarray], bytes],
    *,
    what: str,
    overwrite: bool = False,
) -> PredictReport:
    """Write OUT/NAME.png, what `draw` makes of each picture (H x W x 3 uint8); one that cannot be read is noted and the rest done.

    Raises DataError where a figure is there already (without `overwrite`), before anything is drawn.
    """
    paths = {item.name: out / f"{item.name}.png" for item in pictures}
    check_free(list(paths.values()), overwrite=overwrite)
    report = PredictReport(out, predictor.info, predictor.settings)
    with bar(what, len(pictures)) as advance:
        for item in pictures:
            try:
                write_figure(paths[item.name], _drawn(item, draw))
            except DataError as error:
                log.warning("failed: %s", error)
                report.failed.append((item.path, str(error)))
            else:
                report.written += 1
            advance(note=item.name)
    return report


def _drawn(item: Input, draw: Callable[[Input, np.ndarray], bytes]) -> bytes:
    image = read_image(item.path)
    try:
        return draw(item, image)
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        size = "x".join(map(str, image.shape[:2]))
        raise DataError(f"{item.path}: {size} pixels are too many for this machine's memory; use a smaller copy") from None
