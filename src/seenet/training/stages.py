"""Recipes with stages: successive runs, each from the last weights of the previous one."""

import logging
import shutil
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from seenet.core.device import choose_device
from seenet.core.errors import DataError
from seenet.core.files import replacing
from seenet.core.recipe_files import stage_recipes
from seenet.core.settings import Recipe
from seenet.distributed import init_process_group
from seenet.training.forecast import Forecast, forecast
from seenet.training.run import has_steps, open_run, stage_folders, writing
from seenet.training.setup import open_data
from seenet.training.trainer import TrainResult, train
from seenet.training.validation import LAST, best_result, models_written

log = logging.getLogger("seenet")

MODEL = "model.safetensors"


def train_recipe(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    command: str | None = None,
) -> TrainResult:
    """Train a recipe, with or without stages, into the folder `out`, or resume the run there.

    Each stage is a run in OUT/1-NAME, OUT/2-NAME, ...; OUT/model.safetensors and the result are
    those of the last stage. The data of all unfinished stages is checked before training.
    Arguments and errors are those of `trainer.train`.
    """
    if not recipe.stages:
        return train(recipe, out, resume=resume, device=device, command=command)
    where = choose_device(device)
    timeout = timedelta(minutes=recipe.training.timeout_minutes)
    with (
        init_process_group(where, timeout) as group,
        open_run(out, recipe, resume=resume, rank=group.rank),
    ):
        runs = chain_stages(recipe, out)
        todo = {
            folder: stage
            for folder, stage in runs.items()
            if not models_written(folder, stage.training.steps)
        }
        for stage in todo.values():
            group.check_batch(stage.training.batch, stage.training.accumulate)
        check_data({folder.name.partition("-")[2]: stage for folder, stage in todo.items()})
        for number, (folder, stage) in enumerate(runs.items(), start=1):
            if folder in todo:
                log.info("stage %d of %d: %s", number, len(runs), folder)
                # Within the process group of this function.
                train(stage, folder, resume=has_steps(folder), device=where, command=command)
                # Wait for rank 0 to write the weights that the next stage reads.
                group.any(False)
        if group.first:
            with writing(out), replacing(out / MODEL) as temporary:
                shutil.copyfile(folder / MODEL, temporary)
    best = best_result(folder)
    return TrainResult(out, stage.training.steps, best.get("miou"), best or None, group.first)


def chain_stages(recipe: Recipe, out: Path) -> dict[Path, Recipe]:
    """Return the stages' recipes by folder; each but the first starts from the previous one."""
    folders = stage_folders(out, recipe)
    runs = dict(zip(folders, stage_recipes(recipe).values(), strict=True))
    for before, folder in pairwise(folders):
        start = {"start_from": str(before / LAST)}
        training = runs[folder].training.model_copy(update=start)
        runs[folder] = runs[folder].model_copy(update={"training": training})
    return runs


def check_data(stages: dict[str, Recipe]) -> None:
    """Open every split of every stage and check its labels.

    Raises:
        DataError: A stage's data is wrong, or its classes differ from those of the first stage.
    """
    classes: dict[str, tuple[str, ...]] = {}
    for name, stage in stages.items():
        try:
            classes[name] = open_data(stage).train.labels.classes
        except DataError as error:
            raise DataError(f"stage {name}: {error}") from None
        first, expected = next(iter(classes.items()))
        if classes[name] != expected:
            raise DataError(
                f"stage {name}: its data has {len(classes[name])} classes "
                f"({', '.join(classes[name])}), that of stage {first} has {len(expected)} "
                f"({', '.join(expected)}); expected the same, since the head's weights are kept"
            )


@dataclass(frozen=True)
class StagesForecast:
    """Forecasts of all stages, by name."""

    stages: dict[str, Forecast]

    @property
    def hours(self) -> float:
        return sum(stage.hours for stage in self.stages.values())

    def as_dict(self) -> dict[str, Any]:
        return {
            "stages": {name: stage.as_dict() for name, stage in self.stages.items()},
            "hours": self.hours,
        }

    def lines(self) -> list[str]:
        """Return the forecasts as text, one fact per line."""
        lines = [
            line
            for name, stage in self.stages.items()
            for line in (f"stage {name}:", *(f"  {line}" for line in stage.lines()))
        ]
        return [*lines, f"all stages take about {self.hours:.2f} hours"]


def forecast_recipe(recipe: Recipe, device: str = "auto") -> Forecast | StagesForecast:
    """Forecast a recipe, or each of its stages after a check of all their data; write nothing."""
    stages = stage_recipes(recipe)
    if not stages:
        return forecast(recipe, device)
    check_data(stages)
    return StagesForecast({name: forecast(stage, device) for name, stage in stages.items()})
