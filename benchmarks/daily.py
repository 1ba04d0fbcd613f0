"""Line 6: speed of the loader beside training, and share of the network in `seenet predict`."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.camvid import MISSING, camvid
from benchmarks.measuring import significant
from seenet.core.recipe_files import load_recipe
from seenet.distributed import Ranks
from seenet.export.auto import open_chosen
from seenet.prediction.batch import predict_files
from seenet.training.setup import step_batches
from seenet.training.trainer import Trainer

AHEAD, COUNTED, STEPS = 6, 12, 5
"""Batches that the loader may prepare, batches that are counted, and training steps."""
PICTURES = 100


def loader() -> dict[str, Any]:
    """Return images/s of `camvid-lite0`'s loader with one worker over those of its training."""
    root = camvid()
    if root is None:
        return {"skipped": MISSING}
    torch.manual_seed(0)
    recipe = load_recipe("camvid-lite0", [f"data.root={root}", "model.weights=null"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, Path(folder), torch.device("cpu"), Ranks())
        batches = step_batches(recipe, trainer.data, trainer.model, first_step=0, rank=0, world=1)
        for _ in range(AHEAD):
            batch = next(batches)
        started = time.perf_counter()
        for _ in range(COUNTED):
            next(batches)
        delivered = COUNTED * recipe.training.batch / (time.perf_counter() - started)
        del batches
        trainer.update(batch)
        started = time.perf_counter()
        for _ in range(STEPS):
            trainer.update(batch)
        consumed = STEPS * recipe.training.batch / (time.perf_counter() - started)
    return {
        "values": {"loader over training": significant(delivered / consumed)},
        "images_per_s": {"delivered": significant(delivered), "consumed": significant(consumed)},
    }


def predict() -> dict[str, Any]:
    """Return the share of the network in the time of `seenet predict` after start-up, on CamVid."""
    root = camvid()
    if root is None:
        return {"skipped": MISSING}
    pictures = sorted((root / "val").glob("*.png"))[:PICTURES]
    with tempfile.TemporaryDirectory() as folder:
        job = open_chosen("camvid-lite0", pictures, Path(folder) / "all", device="cpu")
        predict_files(job.predictor, pictures[:1], Path(folder) / "warm")
        report = predict_files(job.predictor, pictures, Path(folder) / "all", chooser=job)
    return {
        "values": {"predict in the network": significant(report.network_seconds / report.seconds)},
        "pictures": report.written,
        "choice": {"runtime": job.choice.runtime, "precision": job.choice.precision},
        "seconds": {
            "network": significant(report.network_seconds),
            "all": significant(report.seconds),
        },
    }
