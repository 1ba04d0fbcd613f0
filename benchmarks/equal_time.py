"""mIoU after equal training time on the light backbone: SeENet beside DeepLabv3+, on CamVid.

    python -m benchmarks.equal_time [--minutes 30] [--out runs/equal-time]

They are scored on val and on the drive 0001TP. Both train by the recipe `camvid-lite0` (or
`camvid-drives`, with the drive held out) in the project's trainer, for as many steps as fit into
the minutes; the steps are timed interleaved, without loader and validation. Images/s are measured
at the end, interleaved, eager, at 360 x 480. After an interruption the same command continues the
four trainings. It writes equal-time.json among the results of this kind of CPU.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import contestants, machine
from benchmarks.camvid import MISSING, camvid
from benchmarks.cases import LIGHT_BACKBONE, Case
from benchmarks.inference import work
from benchmarks.measuring import Work, interleaved, ratios, significant, spread
from seenet.core.errors import DataError
from seenet.core.files import write_text
from seenet.core.recipe_files import load_recipe
from seenet.core.settings import Recipe
from seenet.distributed import Ranks
from seenet.training.setup import step_batches
from seenet.training.trainer import Trainer, train

NETWORKS = ("seenet", "deeplabv3plus")
SPLITS = {"CamVid val": "camvid-lite0", "0001TP held out": "camvid-drives"}
RESULT = machine.RESULTS / machine.kind() / "equal-time.json"
SPEED = Case(2, "inference", LIGHT_BACKBONE, (360, 480), 1, seconds=40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30, help="of training, each")
    parser.add_argument("--out", type=Path, default=Path("runs/equal-time"))
    options = parser.parse_args()
    root = camvid()
    if root is None:
        raise SystemExit(MISSING)
    options.out.mkdir(parents=True, exist_ok=True)
    about = machine.provenance()
    plan = planned(options.out / "steps.json", root, options.minutes)
    runs = []
    for split in SPLITS:
        for name in NETWORKS:
            out = options.out / f"{name}-{SPLITS[split]}"
            done = train(
                recipe(name, split, root, plan["steps"][name]),
                out,
                resume=(out / "recipe.yaml").exists(),
                device="cpu",
            )
            runs.append(
                {"network": name, "split": split, "steps": plan["steps"][name], "miou": done.miou}
            )
    speed = interleaved(
        {name: work(name, SPEED) for name in NETWORKS}, seconds=SPEED.seconds, most=100
    )
    for run in runs:
        run["images_per_s"] = significant(1 / spread(speed["seconds"][run["network"]])["median"])
    result = {
        "name": "equal-time",
        "line": 2,
        "backbone": LIGHT_BACKBONE,
        "options": contestants.LIGHT,
        **plan,
        "runs": runs,
        "speed_over_deeplabv3plus": ratios(
            speed["seconds"]["deeplabv3plus"], speed["seconds"]["seenet"]
        ),
        "others": speed["others"],
        "provenance": about,
    }
    write_text(RESULT, json.dumps(result, indent=1) + "\n")
    print(json.dumps(runs, indent=1))


def recipe(name: str, split: str, root: Path, steps: int) -> Recipe:
    """Return the recipe of `split` with this network and number of steps, validated at the end."""
    own = contestants.LIGHT if name == "seenet" else {}
    options = {"variant": contestants.CONTESTANTS[name], **own}
    weights = (
        Path(os.environ.get("SEENET_SHARED") or machine.ROOT.parent / "shared")
        / "weights"
        / f"{LIGHT_BACKBONE}.fp16.safetensors"
    )
    return load_recipe(
        SPLITS[split],
        [
            f"data.root={root}",
            f"model.weights={weights if weights.exists() else 'imagenet'}",
            *(f"model.{key}={value}" for key, value in options.items()),
            f"training.steps={steps}",
            "training.validate_every=0",
            "training.checkpoint_every=50",
        ],
    )


def planned(path: Path, root: Path, minutes: float) -> dict[str, Any]:
    """Return seconds per step and steps of each network, measured once, then read from `path`.

    Raises DataError where the file is for another number of minutes.
    """
    if path.exists():
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if plan["minutes"] != minutes:
            raise DataError(
                f"{path}: planned for {plan['minutes']} minutes, found --minutes {minutes}; "
                "give another --out"
            )
        return plan
    with tempfile.TemporaryDirectory() as folder:
        works = {
            name: _step(recipe(name, "CamVid val", root, 1000), Path(folder) / name)
            for name in NETWORKS
        }
        found = interleaved(works, seconds=60, least=5)
    seconds = {name: spread(times)["median"] for name, times in found["seconds"].items()}
    steps = {name: max(1, round(60 * minutes / one)) for name, one in seconds.items()}
    plan = {
        "minutes": minutes,
        "seconds_a_step": seconds,
        "steps": steps,
        "planned": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_text(path, json.dumps(plan, indent=1) + "\n")
    return plan


def _step(settings: Recipe, out: Path) -> Work:
    out.mkdir()
    trainer = Trainer(settings, out, torch.device("cpu"), Ranks())
    batch = next(step_batches(settings, trainer.data, trainer.model, first_step=0, rank=0, world=1))
    return lambda: trainer.update(batch)


if __name__ == "__main__":
    main()
