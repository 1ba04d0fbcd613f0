"""`seenet` with a patch: `python -m tests.training.patched NAME ARGUMENT train ...`."""

import json
import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from seenet.cli import main
from seenet.training.setup import Batch
from seenet.training.trainer import Trainer
from tests.training.tiny import before_each, signal_in

RANK = os.environ.get("RANK", "0")


def strike(faults: str) -> AbstractContextManager[None]:
    """Send a rank a signal before an update, counted from 1 in this process.

    RANK:UPDATE:SIGNAL,...: one at the first start, one at the first restart by torchrun, ...
    """
    restart = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    rank, update, name = [*faults.split(","), "::", "::"][restart].split(":")
    return signal_in(int(update), signal.Signals[name]) if rank == RANK else nullcontext()


def record(folder: str) -> AbstractContextManager[None]:
    """Append [step, [epoch, index] ...] to FOLDER/draws-RANK.jsonl before each update."""

    def append(trainer: Trainer, micro_batches: tuple[Batch, ...]) -> None:
        draws = [draw for _, _, part in micro_batches for draw in part.tolist()]
        with (Path(folder) / f"draws-{RANK}.jsonl").open("a") as file:
            file.write(json.dumps([trainer.step, draws]) + "\n")

    return before_each(Trainer, "update", append)


if __name__ == "__main__":
    with {"strike": strike, "record": record}[sys.argv[1]](sys.argv[2]):
        main(sys.argv[3:])
