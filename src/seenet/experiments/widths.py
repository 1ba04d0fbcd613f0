"""mIoU near outlines over the width of the band, for several models in one figure (Table 3)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seenet.core.errors import DataError
from seenet.evaluation.pictures import png_bytes
from seenet.experiments.drawing import check_png, model_names, plot_of, write_figure

MARKERS = "os^Dv<>p"
"""Markers of successive lines, so that they differ in grey print too."""


def write_widths_figure(paths: Sequence[Path], out: Path, *, overwrite: bool = False) -> None:
    """Draw the bands of result files of `seenet eval` into the PNG `out`.

    Raises:
        DataError: a file is missing or has no bands, the files differ in data, split or kind of
            band, or `out` exists (without `overwrite`).
        UsageError: `out` is no .png.
    """
    check_png(out, overwrite=overwrite)
    results = [_read_result(path) for path in paths]
    for path, result in zip(paths, results, strict=True):
        if _title(result) != _title(results[0]):
            raise DataError(
                f"{path}: {_title(result)}, but {paths[0]}: {_title(results[0])}; "
                "lines of one figure need the same"
            )
    models = [
        Path((result.get("model") or {}).get("file") or path)
        for path, result in zip(paths, results, strict=True)
    ]
    names = model_names(models, list(map(str, paths)))
    write_figure(out, widths_figure(dict(zip(names, results, strict=True))))


def widths_figure(results: dict[str, dict[str, Any]]) -> bytes:
    """Draw a line for each result: mIoU, %, over the band's width, pixels; return a PNG."""
    figure, axes = plot_of(6.4, 4.4)
    for place, (name, result) in enumerate(results.items()):
        points = [
            (int(width), 100 * miou)
            for width, miou in result["boundary"]["miou"].items()
            if miou is not None
        ]
        axes.plot(*zip(*points, strict=True), marker=MARKERS[place % len(MARKERS)], label=name)
    axes.set(
        title=_title(next(iter(results.values()))),
        xlabel="width of the band, pixels",
        ylabel="mIoU in the band, %",
        xlim=(0, None),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return png_bytes(figure)


def _read_result(path: Path) -> dict[str, Any]:
    """Read a result with bands; raise DataError for any other file."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a result.json of `seenet eval`")
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        mious = [] if result["boundary"] is None else result["boundary"]["miou"].values()
        _title(result)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a result file ({type(error).__name__}); "
            "expected a result.json of `seenet eval`"
        ) from None
    if all(miou is None for miou in mious):
        raise DataError(
            f"{path}: has no bands; run seenet eval with --boundary trimap or transition"
        )
    return result


def _title(result: dict[str, Any]) -> str:
    kind = result["boundary"]["kind"] if result["boundary"] else "no bands"
    return f"{result['data']}/{result['split']}, {kind}"
