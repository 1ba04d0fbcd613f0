"""`seenet` in which ranks meet a signal: `python -m tests.training.faulty RANK:STEP,RANK:STEP,... SIGNAL train ...`."""

import os
import signal
import sys

from seenet.cli import main
from seenet.training.setup import Batch
from seenet.training.trainer import Trainer


def strike(rank: int, step: int, what: str) -> None:
    """Send this process the signal `what` before the update of `step` (from 0) where it is `rank`."""
    update = Trainer.update

    def struck(trainer: Trainer, micro_batches: tuple[Batch, ...]) -> tuple[float, float]:
        if (int(os.environ["RANK"]), trainer.step) == (rank, step):
            os.kill(os.getpid(), signal.Signals[what])
        return update(trainer, micro_batches)

    Trainer.update = struck  # type: ignore[method-assign]


if __name__ == "__main__":
    # The first fault at the first start, the second at the first restart, and so on.
    faults = dict(enumerate(sys.argv[1].split(",")))
    fault = faults.get(int(os.environ["TORCHELASTIC_RESTART_COUNT"]))
    if fault:
        strike(*map(int, fault.split(":")), what=sys.argv[2])
    main(sys.argv[3:])
