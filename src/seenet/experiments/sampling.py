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


@dataclass(frozen=True)
class Pattern:
    """Points where the gradient of one output point is not zero."""

    title: str
    rate: int
    """Rate of the dilated kernel; of a whole module the largest."""
    support: np.ndarray
    """Bool S x S, S odd and large enough for all of it; the output point is in the middle."""

    @property
    def distance(self) -> np.ndarray:
        """Return the Chebyshev distance of every point from the output point, S x S."""
        offsets = np.abs(np.arange(len(self.support)) - len(self.support) // 2)
        return np.maximum(offsets, offsets[:, None])

    def result(self) -> dict[str, int]:
        """Return the rate, and the number of points in the window, reached in it, and reached.

        The window is that of the dilated kernel, (2 rate + 1) x (2 rate + 1).
        """
        return {
            "rate": self.rate,
            "window": (2 * self.rate + 1) ** 2,
            "reached_in_window": int(self.support[self.distance <= self.rate].sum()),
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

    @property
    def all(self) -> list[Pattern]:
        return [*self.branches, self.whole]

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

    def pattern(title: str, part: nn.Module, rate: int) -> Pattern:
        # One point more than both kernels reach: a border of zeros shows that nothing is cut off.
        # SeEM, which has no local kernel, is drawn at the same scale as SeEM-FS.
        reach = rate + local_size(rate) // 2 + 1
        return Pattern(title, rate, gradient_support(part, reach))

    branches = [
        pattern(f"rate {rate}", branch, rate)
        for rate, branch in zip(rates, module.branches, strict=True)
    ]
    return ModulePatterns(name, branches, pattern("the whole module", module, max(rates)))


def gradient_support(function: Callable[[Tensor], Tensor], reach: int) -> np.ndarray:
    """Return where the gradient of the middle output point is not zero: bool (2 reach + 1)^2.

    Args:
        function: maps positive float64 1 x 1 x h x w to 1 x c x h x w.
        reach: distance from the middle to the border of the input.
    """
    side = 2 * reach + 1
    points = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(function(points)[0, :, reach, reach].sum(), points)
    return np.asarray(gradient[0, 0] != 0)


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
    if model is not None:
        found = levels_of(model)
    else:
        kinds = {SeEM: "SeEM: sparse", SeEMFS: "SeEM-FS: full"}
        wanted = RATES if rates is None else rates
        found = [measure(kind, wanted, name) for kind, name in kinds.items()]
    write_figure(out, sampling_figure(found))
    return found


def lines(modules: Sequence[ModulePatterns]) -> str:
    """Return a line for each branch and each whole module."""
    return "\n".join(
        f"{module.name}, {pattern.title}: {pattern.line(' in the window')}"
        for module in modules
        for pattern in module.all
    )


def sampling_figure(modules: Sequence[ModulePatterns]) -> bytes:
    """Draw a row for each module, its branches and then the whole; return a PNG."""
    rows = [
        (
            module.name,
            [
                Panel(pattern_picture(pattern), pattern.title, pattern.line())
                for pattern in module.all
            ],
        )
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


def pattern_picture(pattern: Pattern, side: int = 400) -> np.ndarray:
    """Draw every point of the support's square as a square: RGB uint8, about `side` wide."""
    inside = pattern.distance <= pattern.rate
    points = np.full((*inside.shape, 3), 255, np.uint8)
    points[pattern.support] = BEYOND
    points[inside] = MISSED
    points[inside & pattern.support] = REACHED
    points[pattern.distance == 0] = MIDDLE
    size = max(1, round(side / len(points)))
    picture = points.repeat(size, 0).repeat(size, 1)
    if size >= 4:
        # A white line between squares, so that they can be counted.
        picture[::size] = picture[:, ::size] = 255
    return picture
