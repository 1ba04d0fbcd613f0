"""Where this process is, for the others to say if it does not come to them."""

import sys
from types import FrameType

WAITING = "waiting"
_WAITS = ("torch.distributed", "torch.autograd", "seenet.evaluation.heartbeat")
"""Where a process is with the others: operations, those of DDP within the backward pass, and the question which of them is lost."""


def whereabouts(thread: int | None) -> str:
    """Of the thread of this identifier: `WAITING` where it is in an operation with the others, else module and line of its innermost frame
    in this package.
    """
    frame: FrameType | None = sys._current_frames().get(thread or 0)
    place = ""
    while frame:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_WAITS):
            return WAITING
        if not place and module.startswith("seenet.") and module != __name__:
            place = f"{module}, line {frame.f_lineno}"
        frame = frame.f_back
    return place or "an unknown place"
