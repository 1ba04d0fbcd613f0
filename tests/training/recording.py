"""`seenet` that also notes which samples each rank is given in each step: `python -m tests.training.recording FOLDER train ...`."""

import json
import os
import sys
from pathlib import Path

from seenet.cli import main
from seenet.training.setup import Batch
from seenet.training.trainer import Trainer


def record(folder: Path) -> None:
    """Append [step, [epoch, index] ...] to FOLDER/draws-RANK.jsonl at each update."""
    update = Trainer.update

    def noting(trainer: Trainer, micro_batches: tuple[Batch, ...]) -> tuple[float, float]:
        draws = [draw for _, _, part in micro_batches for draw in part.tolist()]
        with (folder / f"draws-{os.environ.get('RANK', '0')}.jsonl").open("a") as file:
            file.write(json.dumps([trainer.step, draws]) + "\n")
        return update(trainer, micro_batches)

    Trainer.update = noting  # type: ignore[method-assign]


if __name__ == "__main__":
    record(Path(sys.argv[1]))
    main(sys.argv[2:])
