"""`seenet` with a patch: `python -m tests.training.patched NAME ARGUMENT train ...`."""

import json
import os
import signal
import sys
from itertools import count
from pathlib import Path

from seenet.cli import main
from seenet.training.setup import Batch
from seenet.training.trainer import Trainer

RANK = os.environ.get("RANK", "0")


def strike(faults: str) -> None:
    """Send a rank a signal before an update, counted from 0 in this process.

    RANK:UPDATE:SIGNAL,...: one at the first start, one at the first restart by torchrun, ...
    """
    restart = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    rank, at, name = (dict(enumerate(faults.split(","))).get(restart) or "::").split(":")
    update, updates = Trainer.update, count()

    def struck(trainer: Trainer, micro_batches: tuple[Batch, ...]) -> tuple[float, float]:
        if next(updates) == int(at):
            os.kill(os.getpid(), signal.Signals[name])
        return update(trainer, micro_batches)

    if rank == RANK:
        Trainer.update = struck  # type: ignore[method-assign]


def record(folder: str) -> None:
    """Append [step, [epoch, index] ...] to FOLDER/draws-RANK.jsonl before each update."""
    update = Trainer.update

    def recorded(trainer: Trainer, micro_batches: tuple[Batch, ...]) -> tuple[float, float]:
        draws = [draw for _, _, part in micro_batches for draw in part.tolist()]
        with (Path(folder) / f"draws-{RANK}.jsonl").open("a") as file:
            file.write(json.dumps([trainer.step, draws]) + "\n")
        return update(trainer, micro_batches)

    Trainer.update = recorded  # type: ignore[method-assign]


if __name__ == "__main__":
    {"strike": strike, "record": record}[sys.argv[1]](sys.argv[2])
    main(sys.argv[3:])
