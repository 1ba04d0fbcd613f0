"""Which input points one output point of SeEM and SeEM-FS depends on, measured by the gradient (the paper's Fig. 5, Eq. 1 and 2)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seenet.core.errors import UsageError
from seenet.experiments.each_picture import with_stages
from seenet.model import VARIANTS
from seenet.model.files import load_model
from seenet.model.seem import SeEM, SeEMFS, local_size

MOST = 100
"""Largest rate that is measured: a window of 201 x 201."""


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
