"""mIoU near outlines over the width of the band, several models in one figure (the paper's Table 3)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seenet.core.errors import DataError
from seenet.evaluation.pictures import png_bytes
from seenet.experiments.drawing import check_png, model_names, plot_of, write_figure

MARKERS = "os^Dv<>p"
"""One after the other, so that lines are told apart in grey print too."""


def write_widths_figure(paths: Sequence[Path], out: Path, *, overwrite: bool = False) -> None:
    """Draw the bands of result files of `seenet eval` into the PNG `out`.

    Raises DataError: a file is missing or no result with bands, the files differ in data, split or kind of band, or `out` is there already
    (without `overwrite`); UsageError: `out` is no .png.
    """
    check_png(out, overwrite=overwrite)
    results = [_read(path) for path in paths]
    for path, result in zip(paths, results, strict=True):
        if _about(result) != _about(results[0]):
            raise DataError(f"{path}: {_about(result)}, but {paths[0]}: {_about(results[0])}; lines of one figure need the same")
    write_figure(out, widths_figure(dict(zip(_names(paths, results), results, strict=True))))


def widths_figure(results: dict[str, dict[str, Any]]) -> bytes:
    """PNG with a line for each name's result: mIoU in percent over the band's width in pixels."""
    figure, axes = plot_of(6.4, 4.4)
    for place, (name, result) in enumerate(results.items()):
        points = [(int(width), 100 * miou) for width, miou in result["boundary"]["miou"].items() if miou is not None]
        axes.plot(*zip(*points, strict=True), marker=MARKERS[place % len(MARKERS)], label=name)
    axes.set_title(_about(next(iter(results.values()))))
    axes.set_xlabel("width of the band, pixels")
    axes.set_ylabel("mIoU in the band, %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return png_bytes(figure)


def _read(path: Path) -> dict[str, Any]:
    """A result with bands, or DataError."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a result.json of `seenet eval`")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        bands = result["boundary"]
        _about(result)
        there = bands is not None and any(miou is not None for miou in bands["miou"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a result file ({type(error).__name__}); expected a result.json of `seenet eval`") from None
    if not there:
        raise DataError(f"{path}: has no bands; run seenet eval with --boundary trimap or transition")
    return dict(result)


def _about(result: dict[str, Any]) -> str:
    kind = result["boundary"]["kind"] if result["boundary"] else "no bands"
    return f"{result['data']}/{result['split']}, {kind}"


def _names(paths: Sequence[Path], results: Sequence[dict[str, Any]]) -> list[str]:
    files = [Path((result.get("model") or {}).get("file") or path) for path, result in zip(paths, results, strict=True)]
    return model_names(files, list(map(str, paths)))
