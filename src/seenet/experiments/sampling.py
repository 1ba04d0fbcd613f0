"""Which input points one output point of SeEM and SeEM-FS depends on (the paper's Fig. 5, Eq. 1 and 2).

Measured by the gradient, and drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.patches import Patch
from torch import Tensor, nn

from seenet.core.errors import UsageError
from seenet.experiments.drawing import Panel, check_png, panel_grid, write_figure
from seenet.experiments.probe import with_stages
from seenet.model import VARIANTS
from seenet.model.files import load_model
from seenet.model.seenet import SeEM, SeEMFS, local_size

MOST = 100
"""Largest rate that is measured: a window of 201 x 201."""
RATES = (7, 13, 19, 25)
"""Of the paper's one SeEM-FS, at B4."""
REACHED, BEYOND, MISSED, MIDDLE = (0, 114, 178), (140, 200, 235), (228, 228, 228), (213, 94, 0)


@dataclass(frozen=True)
class Pattern:
    """Where the gradient of one output point is not zero."""

    rate: int
    """Of the dilated kernel; of a whole module the largest."""
    support: np.ndarray
    """Bool S x S, the output point's own place in the middle; S odd, large enough for all of it."""

    @property
    def window(self) -> np.ndarray:
        """The part of the support within the dilated kernel's window, (2 rate + 1) x (2 rate + 1)."""
        middle = len(self.support) // 2
        inside = slice(middle - self.rate, middle + self.rate + 1)
        part: np.ndarray = self.support[inside, inside]
        return part

    @property
    def reach(self) -> int:
        """How far from the middle the window or the support goes, whichever goes further; Chebyshev, in points."""
        return max(self.rate, int(np.abs(np.argwhere(self.support) - len(self.support) // 2).max(initial=0)))

    def result(self) -> dict[str, int]:
        """Rate, points of the window, how many of them are reached, and all that are reached."""
        return {
            "rate": self.rate, "window": self.window.size, "reached_in_window": int(self.window.sum()), "reached": int(self.support.sum()),
        }  # fmt: skip


@dataclass(frozen=True)
class ModulePatterns:
    """A module's branches, and the module with all of them and its input behind one another."""

    name: str
    branches: list[Pattern]
    whole: Pattern

    def result(self) -> dict[str, Any]:
        """As JSON values."""
        return {"name": self.name, "branches": [branch.result() for branch in self.branches], "whole": self.whole.result()}


def measure(kind: type[SeEM], rates: Sequence[int], name: str, *, width: int = 1) -> ModulePatterns:
    """The patterns of a SeEM or SeEM-FS with these rates. Its kernels' shapes decide them, its weights and width (over 0) do not.

    So the module's convolutions get random positive weights in float64 and its batch norms stand as new in eval mode: with positive
    inputs nothing cancels and every ReLU is open, and a gradient is zero only where no path leads. UsageError: rates.
    """
    if not rates or min(rates) < 1 or max(rates) > MOST:
        raise UsageError(f"rates {', '.join(map(str, rates))}: expected at least one, whole numbers from 1 to {MOST}")
    module = kind(1, rates, width=width).double().eval()
    draw = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.uniform_(part.weight, 0.1, 1, generator=draw)
    # One more than the dilated kernel and the local one reach, so that a border of zeros shows that nothing is cut off.
    reaches = [rate + local_size(rate) // 2 + 1 for rate in rates]
    branches = [
        Pattern(rate, gradient_support(branch, 1, reach)) for rate, branch, reach in zip(rates, module.branches, reaches, strict=True)
    ]
    return ModulePatterns(name, branches, Pattern(max(rates), gradient_support(module, 1, max(reaches))))


def gradient_support(function: Callable[[Tensor], Tensor], channels: int, reach: int) -> np.ndarray:
    """Where d(sum over channels of the middle output point) / d(input) is not zero in any channel: bool (2 reach + 1)^2.

    `function`: 1 x channels x h x w float64, positive -> 1 x c x h x w.
    """
    side = 2 * reach + 1
    points = torch.rand(1, channels, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).add_(0.1)
    points.requires_grad_()
    (gradient,) = torch.autograd.grad(function(points)[0, :, reach, reach].sum(), points)
    support: np.ndarray = (gradient[0] != 0).any(0).numpy()
    return support


def sparse_and_full(rates: Sequence[int]) -> list[ModulePatterns]:
    """SeEM and SeEM-FS with the same rates. UsageError: rates."""
    return [measure(SeEM, rates, "SeEM: sparse"), measure(SeEMFS, rates, "SeEM-FS: full")]


def levels_of(name: str) -> list[ModulePatterns]:
    """What enhances the levels of a model (by run folder, file or bundled name), with the rates that it has there.

    UsageError where it has neither SeEM nor SeEM-FS, or is a network of `model.factory`; DataError: no such model.
    """
    model = load_model(with_stages(name)).model
    found = {path.rpartition(".")[2]: module for path, module in model.named_modules() if isinstance(module, SeEM)}
    if not found:
        those = ", ".join(variant for variant, row in VARIANTS.items() if {"seem", "fs"} & set(row.levels))
        raise UsageError(f"{name}: variant {model.options['variant']} has neither SeEM nor SeEM-FS; variants that do: {those}")
    return [
        measure(type(module), module.rates, f"{level}: {'SeEM-FS' if isinstance(module, SeEMFS) else 'SeEM'}")
        for level, module in found.items()
    ]


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
