"""Two ways to keep checkpoints that go through the same faults: the one under test, and the known-bad baseline."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seenet.training import checkpoint

Content = dict[str, dict[str, Tensor]]

KEEP = 2


def content(step: int) -> Content:
    """About a mebibyte whose every number tells its step."""
    return {
        name: {f"{part}.weight": torch.full((64, 640), float(step)) for part in range(3)}
        for name in ("model", "optimizer")
    }


def check(found: tuple[int, Content]) -> int:
    """The step; AssertionError where a number is of another."""
    step, tensors = found
    expected = content(step)
    for name, parts in expected.items():
        for key, value in parts.items():
            assert torch.equal(tensors[name][key], value), f"{name}/{key} is not of step {step}"
    return step


@dataclass(frozen=True)
class Store:
    """`save` a step into a folder, and find the `newest`; None where there is none."""

    save: Callable[[Path, int], None]
    newest: Callable[[Path], tuple[int, Content] | None]


def _save(root: Path, step: int) -> None:
    checkpoint.save(root, step, checkpoint.Checkpoint(content(step), {"step": step}), KEEP)


def _newest(root: Path) -> tuple[int, Content] | None:
    found = checkpoint.newest(root)
    return None if found is None else (int(found.state["step"]), found.tensors)


def _plain_save(root: Path, step: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    torch.save({"step": step, **content(step)}, root / "last.pt")


def _plain_newest(root: Path) -> tuple[int, Content] | None:
    if not (root / "last.pt").exists():
        return None
    found = torch.load(root / "last.pt", weights_only=False)
    return int(found.pop("step")), found


OURS = Store(_save, _newest)
PLAIN = Store(_plain_save, _plain_newest)
"""What many training scripts do; nothing in `src/` may."""
