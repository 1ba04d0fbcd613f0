"""Input points that one output point of SeEM and SeEM-FS depends on (Fig. 5, Eq. 1 and 2).

They are measured by the gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seenet.core.errors import UsageError
from seenet.experiments.drawing import Panel, check_png, legend_key, panel_grid, write_figure
from seenet.experiments.probe import find_model_with_stages
from seenet.model import VARIANTS
from seenet.model.files import load_model
from seenet.model.seenet import SeEM, SeEMFS, local_size

MAX_RATE = 100
"""Largest rate that is measured: its window is 201 x 201."""
RATES = (7, 13, 19, 25)
"""Rates of the paper's SeEM-FS, at B4."""
NAMES = {SeEM: "SeEM", SeEMFS: "SeEM-FS"}
REACHED, BEYOND, MISSED, MIDDLE = (0, 114, 178), (140, 200, 235), (228, 228, 228), (213, 94, 0)


def _middle(square: np.ndarray, reach: int) -> np.ndarray:
    """Return the part of a square array up to `reach` points from its middle."""
    middle = len(square) // 2
    inside = slice(middle - reach, middle + reach + 1)
    part: np.ndarray = square[inside, inside]
    return part


@dataclass(frozen=True)
class Pattern:
    """Points where the gradient of one output point is not zero."""

    rate: int
    """Rate of the dilated kernel; of a whole module the largest."""
    support: np.ndarray
    """Bool S x S, S odd and large enough for all of it; the output point is in the middle."""

    @property
    def window(self) -> np.ndarray:
        """Return the support within the dilated kernel, (2 rate + 1) x (2 rate + 1)."""
        return _middle(self.support, self.rate)

    @property
    def reach(self) -> int:
        """Return the Chebyshev distance, in points, of the farthest point of window and support."""
        offsets = np.argwhere(self.support) - len(self.support) // 2
        return max(self.rate, int(np.abs(offsets).max(initial=0)))

    def result(self) -> dict[str, int]:
        """Return the rate, and the number of points in the window, reached in it, and reached."""
        return {
            "rate": self.rate,
            "window": self.window.size,
            "reached_in_window": int(self.window.sum()),
            "reached": int(self.support.sum()),
        }

    def line(self, where: str = "") -> str:
        """Return the counts for people, such as `225 of 225 points, 216 beyond`."""
        counts = self.result()
        beyond = counts["reached"] - counts["reached_in_window"]
        more = f", {beyond:,} beyond" if beyond else ""
        return f"{counts['reached_in_window']:,} of {counts['window']:,} points{where}{more}"


@dataclass(frozen=True)
class ModulePatterns:
    """Patterns of a module's branches and of the whole module, which passes its input on too."""

    name: str
    branches: list[Pattern]
    whole: Pattern

    def titled(self) -> list[tuple[str, Pattern]]:
        """Return the patterns with their titles, the whole module last."""
        branches = [(f"rate {branch.rate}", branch) for branch in self.branches]
        return [*branches, ("the whole module", self.whole)]

    def result(self) -> dict[str, Any]:
        """Return the patterns as JSON values."""
        return {
            "name": self.name,
            "branches": [branch.result() for branch in self.branches],
            "whole": self.whole.result(),
        }


def measure(kind: type[SeEM], rates: Sequence[int], name: str) -> ModulePatterns:
    """Measure the patterns of a SeEM or SeEM-FS with these rates.

    The shapes of its kernels decide them, not weights and widths. So the convolutions get random
    positive weights in float64, batch norm is new and in eval mode, and inputs are positive:
    nothing cancels, every ReLU is open, and a gradient is zero only where no path leads.

    Raises:
        UsageError: rates that cannot be measured.
    """
    if not rates or min(rates) < 1 or max(rates) > MAX_RATE:
        raise UsageError(
            f"rates {', '.join(map(str, rates))}: expected at least one, "
            f"whole numbers from 1 to {MAX_RATE}"
        )
    module = kind(1, rates, width=1).double().eval()
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.uniform_(part.weight, 0.1, 1, generator=generator)
    # One point more than both kernels reach: a border of zeros shows that nothing is cut off.
    reaches = [rate + local_size(rate) // 2 + 1 for rate in rates]
    branches = [
        Pattern(rate, gradient_support(branch, 1, reach))
        for rate, branch, reach in zip(rates, module.branches, reaches, strict=True)
    ]
    whole = Pattern(max(rates), gradient_support(module, 1, max(reaches)))
    return ModulePatterns(name, branches, whole)


def gradient_support(function: Callable[[Tensor], Tensor], channels: int, reach: int) -> np.ndarray:
    """Return where the gradient of the middle output point is not zero: bool (2 reach + 1)^2.

    Args:
        function: maps positive float64 1 x channels x h x w to 1 x c x h x w.
        channels: of its input.
        reach: distance from the middle to the border of the input.
    """
    side = 2 * reach + 1
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(1, channels, side, side, dtype=torch.float64, generator=generator) + 0.1
    points.requires_grad_()
    (gradient,) = torch.autograd.grad(function(points)[0, :, reach, reach].sum(), points)
    support: np.ndarray = (gradient[0] != 0).any(0).numpy()
    return support


def sparse_and_full(rates: Sequence[int]) -> list[ModulePatterns]:
    """Measure SeEM and SeEM-FS with the same rates. UsageError as for `measure`."""
    return [measure(SeEM, rates, "SeEM: sparse"), measure(SeEMFS, rates, "SeEM-FS: full")]


def levels_of(name: str) -> list[ModulePatterns]:
    """Measure the levels of a model (run folder, file or bundled name) with the rates that it has.

    Raises:
        UsageError: it has neither SeEM nor SeEM-FS, or is a network of `model.factory`.
        DataError: no such model.
    """
    model = load_model(find_model_with_stages(name)).model
    modules = {
        path.rpartition(".")[2]: module
        for path, module in model.named_modules()
        if isinstance(module, SeEM)
    }
    if not modules:
        having = [v for v, row in VARIANTS.items() if {"seem", "fs"} & set(row.levels)]
        raise UsageError(
            f"{name}: variant {model.options['variant']} has neither SeEM nor SeEM-FS; "
            f"variants that do: {', '.join(having)}"
        )
    return [
        measure(type(module), module.rates, f"{level}: {NAMES[type(module)]}")
        for level, module in modules.items()
    ]


def write_sampling(
    out: Path,
    *,
    model: str | None = None,
    rates: Sequence[int] | None = None,
    overwrite: bool = False,
) -> list[ModulePatterns]:
    """Draw the PNG `out`: the levels of a model, or SeEM and SeEM-FS with `rates` (None: `RATES`).

    Raises:
        UsageError: both a model and rates, or as for `measure` and `levels_of`.
        DataError: no such model, or `out` exists (without `overwrite`).
    """
    check_png(out, overwrite=overwrite)
    if model is not None and rates is not None:
        listed = ",".join(map(str, rates))
        raise UsageError(f"{model} has rates of its own; leave --rates {listed} out, or the model")
    found = (
        levels_of(model)
        if model is not None
        else sparse_and_full(RATES if rates is None else rates)
    )
    write_figure(out, sampling_figure(found))
    return found


def lines(modules: Sequence[ModulePatterns]) -> str:
    """Return a line for each branch and each whole module."""
    return "\n".join(
        f"{module.name}, {title}: {pattern.line(' in the window')}"
        for module in modules
        for title, pattern in module.titled()
    )


def sampling_figure(modules: Sequence[ModulePatterns]) -> bytes:
    """Draw a row for each module, its branches and then the whole; return a PNG."""
    # Patterns of one rate in one column have one scale, such as sparse over full.
    reaches: dict[tuple[int, int], int] = {}
    for module in modules:
        for column, (_, pattern) in enumerate(module.titled()):
            place = column, pattern.rate
            reaches[place] = max(reaches.get(place, 0), pattern.reach)
    rows = [
        [
            Panel(
                pattern_picture(pattern, reaches[column, pattern.rate]),
                title,
                pattern.line(),
                module.name if column == 0 else "",
            )
            for column, (title, pattern) in enumerate(module.titled())
        ]
        for module in modules
    ]
    caption = (
        "Input points that the output point in the middle depends on: its gradient there is not "
        "zero, measured in float64 with positive weights. The window is that of the dilated 3x3 "
        "kernel, (2 rate + 1) x (2 rate + 1) points; of the whole module that of its largest rate."
    )
    keys = [
        legend_key("reached, in the output point's own place", MIDDLE),
        legend_key("reached", REACHED),
        legend_key("in the window, not reached", MISSED),
        legend_key("reached beyond the window, by the local convolution", BEYOND),
    ]
    return panel_grid(rows, caption, keys)


def pattern_picture(pattern: Pattern, reach: int, side: int = 400) -> np.ndarray:
    """Draw the points up to `reach` from the middle as squares: RGB uint8, about `side` wide."""
    points = np.where(pattern.support[..., None], BEYOND, (255, 255, 255)).astype(np.uint8)
    _middle(points, pattern.rate)[:] = np.where(pattern.window[..., None], REACHED, MISSED)
    _middle(points, 0)[:] = MIDDLE
    points = _middle(points, reach)
    size = max(1, round(side / len(points)))
    picture = points.repeat(size, 0).repeat(size, 1)
    if size >= 4:
        # A white line between squares, so that they can be counted.
        picture[::size] = picture[:, ::size] = 255
    return picture
