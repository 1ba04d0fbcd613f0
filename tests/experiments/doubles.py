"""Runs that look trained: what an ablation reads of a run's folder, without the training."""

import json
from pathlib import Path

from seenet.core.recipe_files import dump
from seenet.experiments.plan import Plan, Run, make_plan

TINY = [
    "model.backbone=resnet10t", "model.weights=null", "model.width=8", "model.p_out=16", "data.size=48", "data.count=20",
    "transforms.crop=48", "training.steps=2", "training.batch=2", "training.workers=0", "training.validate_every=0",
]  # fmt: skip


def tiny_plan(
    out: Path,
    *,
    rows: str | None = "c,j",
    seeds: int = 2,
    vary: list[str] | None = None,
    reference: str | None = None,
) -> Plan:
    return make_plan(
        "shapes", TINY, out, rows=rows, seeds=seeds, vary=vary or [], reference=reference
    )


def pretend_trained(run: Run, miou: float, *, code: int = 0) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "recipe.yaml").write_text(dump(run.recipe))
    (run.folder / "model.safetensors").write_bytes(b"weights")
    result = {
        "miou": miou,
        "data": "shapes",
        "split": "val",
        "images": 50,
        "precision": "fp32",
        "absent": [],
        "step": 2,
    }
    (run.folder / "val.json").write_text(json.dumps(result))
    lines = [
        {"step": 1, "loss": 1.0, "images_per_s": 2.0, "memory_mib": 300},
        {"step": 2, "loss": 0.9, "images_per_s": 4.0, "memory_mib": 310},
        {"step": 2, "val": {"miou": miou - 0.01, "loss": 1.0}},
    ]
    (run.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (run.folder / "exit.json").write_text(json.dumps({"0": {"code": code, "reason": "done"}}))
