"""`seenet` in which ranks meet a signal, or hang: `python -m tests.training.faulty RANK:STEP,RANK:STEP,... SIGNAL train ...`, impatient."""

import os
import signal
import sys
import time
from datetime import timedelta

from seenet.cli import main
from seenet.evaluation import gather, heartbeat
from seenet.training.setup import Batch
from seenet.training.trainer import Trainer


def strike(rank: int, step: int, what: str) -> None:
    """Send this process the signal `what`, or let it HANG, before the update of `step` (from 0) where it is `rank`."""
    update = Trainer.update

    def struck(trainer: Trainer, micro_batches: tuple[Batch, ...]) -> tuple[float, float]:
        if (int(os.environ["RANK"]), trainer.step) == (rank, step):
            if what == "HANG":
                time.sleep(3600)
            os.kill(os.getpid(), signal.Signals[what])
        return update(trainer, micro_batches)

    Trainer.update = struck  # type: ignore[method-assign]


if __name__ == "__main__":
    heartbeat.SILENCE, heartbeat.GRACE = 5, 2.0
    if sys.argv[2] == "HANG":
        # For these alone: slow starts of the others must not count.
        gather.TIMEOUT = timedelta(seconds=40)
    # The first fault at the first start, the second at the first restart, and so on.
    faults = dict(enumerate(sys.argv[1].split(",")))
    fault = faults.get(int(os.environ["TORCHELASTIC_RESTART_COUNT"]))
    if fault:
        strike(*map(int, fault.split(":")), what=sys.argv[2])
    main(sys.argv[3:])
