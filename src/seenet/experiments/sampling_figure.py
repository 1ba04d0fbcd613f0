"""The figure of what `sampling` measures (the paper's Fig. 5)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch

from seenet.core.errors import UsageError
from seenet.experiments.drawing import Panel, check_png, panel_grid, write_figure
from seenet.experiments.sampling import ModulePatterns, Pattern, levels_of, sparse_and_full

RATES = (7, 13, 19, 25)
"""Of the paper's one SeEM-FS, at B4."""
REACHED, BEYOND, MISSED, MIDDLE = (0, 114, 178), (140, 200, 235), (228, 228, 228), (213, 94, 0)


def write_sampling(
    out: Path, *, model: str | None = None, rates: Sequence[int] | None = None, overwrite: bool = False
) -> list[ModulePatterns]:
    """Draw the PNG `out`: the levels of a model, or SeEM over SeEM-FS with `rates` (None: `RATES`). Errors of both, and of `check_png`."""
    check_png(out, overwrite=overwrite)
    if model is not None and rates is not None:
        raise UsageError(f"{model} has rates of its own; leave --rates {','.join(map(str, rates))} out, or the model")
    found = sparse_and_full(RATES if rates is None else rates) if model is None else levels_of(model)
    write_figure(out, sampling_figure(found))
    return found


def lines(modules: Sequence[ModulePatterns]) -> str:
    """What was measured in words, a line a branch."""
    said = []
    for module in modules:
        said += [f"{module.name}, rate {branch.rate}: {_count(branch, ' in the window')}" for branch in module.branches]
        said.append(f"{module.name}, the whole module: {_count(module.whole, ' in the window')}")
    return "\n".join(said)


def sampling_figure(modules: Sequence[ModulePatterns]) -> bytes:
    """PNG: a module a row, its branches and then the whole."""
    titled = [[*((f"rate {branch.rate}", branch) for branch in module.branches), ("the whole module", module.whole)] for module in modules]
    # Patterns of one rate in one column are drawn to one scale: sparse over full.
    reaches: dict[tuple[int, int], int] = {}
    for row in titled:
        for column, (_, pattern) in enumerate(row):
            reaches[column, pattern.rate] = max(reaches.get((column, pattern.rate), 0), pattern.reach)
    rows = [
        [
            Panel(pattern_picture(pattern, reaches[column, pattern.rate]), title, _count(pattern), module.name if column == 0 else "")
            for column, (title, pattern) in enumerate(row)
        ]
        for module, row in zip(modules, titled, strict=True)
    ]
    caption = (
        "Input points that the output point in the middle depends on: its gradient there is not zero, measured in float64 with positive "
        "weights. The window is that of the dilated 3x3 kernel, (2 rate + 1) x (2 rate + 1) points; of the whole module that of its "
        "largest rate."
    )
    names = {
        MIDDLE: "reached, in the output point's own place", REACHED: "reached", MISSED: "in the window, not reached",
        BEYOND: "reached beyond the window, by the local convolution",
    }  # fmt: skip
    keys = [Patch(facecolor=tuple(np.array(colour) / 255), edgecolor="0.6", linewidth=0.6, label=text) for colour, text in names.items()]
    return panel_grid(rows, caption, keys)


def pattern_picture(pattern: Pattern, reach: int, side: int = 400) -> np.ndarray:
    """The pattern up to `reach` points from its middle as squares, about `side` pixels wide, RGB uint8."""
    points = len(pattern.support)
    colours = np.full((points, points, 3), 255, np.uint8)
    colours[pattern.support] = BEYOND
    middle = points // 2
    inside = slice(middle - pattern.rate, middle + pattern.rate + 1)
    colours[inside, inside] = np.where(pattern.window[..., None], REACHED, MISSED)
    colours[middle, middle] = MIDDLE
    shown = slice(middle - reach, middle + reach + 1)
    colours = colours[shown, shown]
    size = max(1, round(side / len(colours)))
    picture = colours.repeat(size, 0).repeat(size, 1)
    if size >= 4:
        # A white line between squares, so that they can be counted.
        picture[::size] = picture[:, ::size] = 255
    return picture


def _count(pattern: Pattern, where: str = "") -> str:
    found = pattern.result()
    beyond = found["reached"] - found["reached_in_window"]
    return f"{found['reached_in_window']:,} of {found['window']:,} points{where}{f', {beyond:,} beyond' if beyond else ''}"
