"""The parallel feature pyramid (Sec. 3.1 and 3.4, Fig. 3 and 6)."""

from torch import Tensor, cat, nn
from torch.nn import functional as F


def pool_to(x: Tensor, like: Tensor) -> Tensor:
    """Average-pool x to the next level's coarser grid (2x2, ceil, padding not counted); x itself where the grids agree."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    if pooled.shape[-2:] != like.shape[-2:]:
        raise ValueError(f"grids {tuple(x.shape[-2:])} and {tuple(like.shape[-2:])} are not a factor of 2 apart")
    return pooled


class ParallelPyramid(nn.Module):
    """From bottom to top: enhance, then concatenate the backbone's next stage.

    P2 = enhance2(B2); P3 = enhance3([P2, B3]); P4 = enhance4([P3, B4]). `enhance4` is None for `pfp`, whose ASPP takes [P3, B4].
    """

    def __init__(self, enhance2: nn.Module, enhance3: nn.Module, enhance4: nn.Module | None) -> None:
        super().__init__()
        self.P2, self.P3, self.P4 = enhance2, enhance3, enhance4

    def forward(self, b2: Tensor, b3: Tensor, b4: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the enhanced levels by name, and the top: P4, or [P3, B4] where nothing enhances it."""
        p2 = self.P2(b2)
        p3 = self.P3(cat([pool_to(p2, b3), b3], dim=1))
        top = cat([pool_to(p3, b4), b4], dim=1)
        if self.P4 is None:
            return {"P2": p2, "P3": p3}, top
        p4 = self.P4(top)
        return {"P2": p2, "P3": p3, "P4": p4}, p4
