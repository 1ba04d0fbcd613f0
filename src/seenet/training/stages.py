"""A recipe with stages: runs one after the other, each from the last weights of the one before."""

import logging
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from seenet.core.device import choose_device
from seenet.core.errors import DataError
from seenet.core.files import replacing
from seenet.core.recipe_files import stage_recipes
from seenet.core.settings import Recipe
from seenet.distributed import init_process_group
from seenet.training.forecast import Forecast, forecast
from seenet.training.run import begun, open_run, stage_folders
from seenet.training.setup import open_data
from seenet.training.trainer import TrainResult, train, train_in
from seenet.training.validation import LAST, best_result, is_kept
from seenet.training.writing import writing

log = logging.getLogger("seenet")

MODEL = "model.safetensors"


def train_recipe(recipe: Recipe, out: Path, *, resume: bool = False, device: str = "auto", command: str | None = None) -> TrainResult:
    """Run a recipe, with stages or without, into the folder `out`, or go on with the run there.

    Stages are runs of their own in OUT/1-NAME, OUT/2-NAME, ...; OUT/model.safetensors is the last one's, and so is what is returned.
    The data of all that are not finished is checked before the first of them starts. Arguments and errors as `trainer.train`.
    """
    if not recipe.stages:
        return train(recipe, out, resume=resume, device=device, command=command)
    where = choose_device(device)
    timeout = timedelta(minutes=recipe.training.timeout_minutes)
    with init_process_group(where, timeout) as group, open_run(out, recipe, resume=resume, rank=group.rank):
        runs = chained(recipe, out)
        todo = {folder: stage for folder, stage in runs.items() if not is_kept(folder, stage.training.steps)}
        for stage in todo.values():
            group.check_batch(stage.training.batch, stage.training.accumulate)
        check_data({folder.name.partition("-")[2]: stage for folder, stage in todo.items()})
        for number, (folder, stage) in enumerate(runs.items(), start=1):
            if folder in todo:
                log.info("stage %d of %d: %s", number, len(runs), folder)
                train_in(group, stage, folder, where, resume=begun(folder), command=command)
                # The next stage reads what the first process writes.
                group.any(False)
        if group.first:
            with writing(out), replacing(out / MODEL) as temporary:
                shutil.copyfile(folder / MODEL, temporary)
    best = best_result(folder)
    return TrainResult(out, stage.training.steps, best.get("miou"), best or None, group.first)


def chained(recipe: Recipe, out: Path) -> dict[Path, Recipe]:
    """The stages' recipes by their folders; from the second on each starts from the one before."""
    runs: dict[Path, Recipe] = {}
    before: Path | None = None
    for folder, stage in zip(stage_folders(out, recipe), stage_recipes(recipe).values(), strict=True):
        start = {"start_from": str(before / LAST)} if before else {}
        runs[folder] = stage.model_copy(update={"training": stage.training.model_copy(update=start)})
        before = folder
    return runs


def check_data(stages: dict[str, Recipe]) -> None:
    """Open every split of every stage and check its labels. DataError names the stage; classes must be the same in all."""
    first: tuple[str, tuple[str, ...]] | None = None
    for name, stage in stages.items():
        try:
            classes = open_data(stage).train.labels.classes
        except DataError as error:
            raise DataError(f"stage {name}: {error}") from None
        first = first or (name, classes)
        if classes != first[1]:
            raise DataError(
                f"stage {name}: its data has {len(classes)} classes ({', '.join(classes)}), that of stage {first[0]} {len(first[1])} "
                f"({', '.join(first[1])}); expected the same, since the head's weights are kept"
            )


@dataclass(frozen=True)
class StagesForecast:
    """What each stage will take, by name."""

    stages: dict[str, Forecast]

    @property
    def hours(self) -> float:
        return sum(stage.hours for stage in self.stages.values())

    def as_dict(self) -> dict[str, Any]:
        return {"stages": {name: stage.as_dict() for name, stage in self.stages.items()}, "hours": self.hours}

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        lines = [line for name, stage in self.stages.items() for line in (f"stage {name}:", *(f"  {line}" for line in stage.lines()))]
        return [*lines, f"all stages take about {self.hours:.2f} hours"]


def forecast_recipe(recipe: Recipe, device: str = "auto") -> Forecast | StagesForecast:
    """`forecast` of a recipe, or of each of its stages once the data of all is checked; nothing is written."""
    stages = stage_recipes(recipe)
    if not stages:
        return forecast(recipe, device)
    check_data(stages)
    return StagesForecast({name: forecast(stage, device) for name, stage in stages.items()})
