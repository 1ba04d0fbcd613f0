"""Train one run of an ablation in a process of its own.

`python -m seenet.experiments.train_run RECIPE OUT DEVICE` has the exit codes of `seenet train`, and
the last line of its output is the error.
"""

import logging
import shlex
import signal
import sys
from pathlib import Path

from seenet.core.child import refuse
from seenet.core.errors import SeenetError, Terminated
from seenet.core.recipe_files import load_recipe
from seenet.training.trainer import train


def main(recipe: str, out: str, device: str) -> None:
    """Train the recipe into the folder `out`, or resume the run there."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("seenet").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _terminate)
    resume = Path(out, "recipe.yaml").exists()
    command = ["seenet", "train", recipe, "--out", out, "--device", device]
    try:
        train(
            load_recipe(recipe),
            Path(out),
            resume=resume,
            device=device,
            command=shlex.join([*command, "--resume"] if resume else command),
        )
    except (SeenetError, Terminated) as error:
        refuse(str(error) or "terminated", error.exit_code)


def _terminate(*_: object) -> None:
    raise Terminated


if __name__ == "__main__":
    main(*sys.argv[1:])
