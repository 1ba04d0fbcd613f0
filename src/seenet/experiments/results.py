"""What an ablation came to: the content of results.json from the folders of its runs, and its tables and plot."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import seenet
from seenet.core.files import sha256
from seenet.core.recipe_files import dump
from seenet.evaluation.pictures import png_bytes
from seenet.experiments.plan import Cell, Plan, Run, is_finished, read_result
from seenet.training.logging import read_metrics

PROTOCOL = (
    "data", "split", "images", "labels", "ignore_rule", "absent_rule", "size_rule", "scales", "flip", "precision", "precision_of_training",
)  # fmt: skip
CONFIDENCE = 0.95
RESOLVED = {True: "", False: ", not resolved", None: ", one seed"}


@dataclass(frozen=True)
class Spread:
    """Mean of some values; their standard deviation (n - 1) and the mean's 95 % interval (Student t), None where there is but one value."""

    mean: float
    sd: float | None
    interval: tuple[float, float] | None
    count: int

    @property
    def resolved(self) -> bool | None:
        """Whether 0 lies outside the interval; None without one."""
        return None if self.interval is None else not self.interval[0] <= 0 <= self.interval[1]


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value. The interval is mean +- t(0.975; n - 1) sd / sqrt(n)."""
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return Spread(mean, None, None, 1)
    from scipy.stats import t

    sd = float(np.std(values, ddof=1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * sd / count**0.5
    return Spread(mean, sd, (mean - half, mean + half), count)


def paired_difference(values: dict[int, float], reference: dict[int, float]) -> Spread | None:
    """Spread of value - reference over the seeds that both have; None where they share none."""
    shared = sorted(values.keys() & reference.keys())
    return spread([values[seed] - reference[seed] for seed in shared]) if shared else None


def outcome(plan: Plan, *, failed: dict[str, str], command: str | None) -> dict[str, Any]:
    """Numbers are shares (0..1), FLOPs and MiB. `complete` is false while a run is missing, and `missing` names it.

    `protocol` is the first run's; `differs` lists the values of what is not the same in all of them (`precision: auto` may choose two).
    """
    finished = [run for run in plan.runs if is_finished(run)]
    results = {run.name: read_result(run) or {} for run in finished}
    mious = {cell.name: {run.seed: float(results[run.name]["miou"]) for run in finished if run.cell is cell} for cell in plan.cells}
    first = results[finished[0].name] if finished else {}
    return {
        "complete": len(finished) == len(plan.runs),
        "finished": len(finished),
        "planned": len(plan.runs),
        "missing": [run.name for run in plan.runs if run.name not in results],
        "failed": failed,
        "unit": plan.unit,
        **plan.about,
        "reference": plan.reference.name,
        "rules": {
            "miou": "of the best validation of a run, the model it keeps; last_miou of the last one",
            "difference": "row - reference, paired by seed; interval: 95 %, Student t over the paired seeds",
            "flops": f"of one image of the crop's size, {plan.recipe.transforms.crop[0]}x{plan.recipe.transforms.crop[1]}",
            "images_per_s": "training, median over all steps of all seeds, on the machine where they ran",
            "memory_mib": "training, highest of all steps of all seeds: the device's on CUDA, else the process's",
            "paper": "Table 1 of the paper: VOC 2012 val, another data set, backbone and budget than measured here unless all are the same",
            **plan.rules,
        },
        "protocol": {key: first[key] for key in PROTOCOL if key in first},
        "differs": _differences(list(results.values())),
        "rows": [_row(plan, cell, [run for run in finished if run.cell is cell], results, mious) for cell in plan.cells],
        "recipe": dump(plan.recipe),
        "version": seenet.__version__,
        "command": command,
    }


def _differences(results: list[dict[str, Any]]) -> dict[str, list[Any]]:
    found = {key: [json.loads(text) for text in sorted({json.dumps(result.get(key)) for result in results})] for key in PROTOCOL}
    return {key: values for key, values in found.items() if len(values) > 1}


def _row(plan: Plan, cell: Cell, runs: list[Run], results: dict[str, dict[str, Any]], mious: dict[str, dict[int, float]]) -> dict[str, Any]:
    metrics = [entry for run in runs for entry in read_metrics(run.folder / "metrics.jsonl")]
    speeds = [entry["images_per_s"] for entry in metrics if "images_per_s" in entry]
    memory = [entry["memory_mib"] for entry in metrics if "memory_mib" in entry]
    own = mious[cell.name]
    difference = paired_difference(own, mious[plan.reference.name]) if cell is not plan.reference else None
    return {
        "row": cell.name,
        "settings": list(cell.settings),
        "paper": None if cell.paper is None else asdict(cell.paper),
        "planned": plan.seeds,
        "miou": _spread(spread(list(own.values()))) if own else None,
        "difference": None if difference is None else {**_spread(difference), "resolved": difference.resolved},
        "parameters": cell.parameters,
        "flops": cell.flops,
        "output_stride": cell.output_stride,
        "images_per_s": float(np.median(speeds)) if speeds else None,
        "memory_mib": max(memory) if memory else None,
        "runs": [_run(run, results[run.name]) for run in runs],
    }


def _spread(value: Spread) -> dict[str, Any]:
    return {"mean": value.mean, "sd": value.sd, "interval": None if value.interval is None else list(value.interval), "seeds": value.count}


def _run(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    validations = [entry["val"]["miou"] for entry in read_metrics(run.folder / "metrics.jsonl") if "val" in entry]
    model = run.folder / "model.safetensors"
    return {
        "seed": run.seed,
        "folder": str(run.folder),
        "miou": result["miou"],
        "step": result.get("step"),
        "last_miou": validations[-1] if validations else None,
        "absent": result.get("absent"),
        "model": {"file": str(model), "sha256": sha256(model)},
    }


def partial_note(result: dict[str, Any]) -> str:
    """The line that stands above everything while a run is missing; empty when all are there."""
    if result["complete"]:
        return ""
    missing = result["missing"]
    named = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
    return f"PARTIAL: {result['finished']} of {result['planned']} runs are finished; missing: {named}"


def markdown(result: dict[str, Any]) -> str:
    """One table; measured mIoU and the paper's stand in columns of their own."""
    protocol = result["protocol"]
    where = f"{protocol['data']}/{protocol['split']}, {protocol['images']} images" if protocol else "nothing yet"
    header = [
        result["unit"], f"mIoU measured ({where}), %", "sd", "seeds", f"difference to {result['reference']}, points (95 % interval)",
        "parameters, M", "GFLOP", "images/s", "memory, MiB", "mIoU in the paper (VOC val), %",
    ]  # fmt: skip
    lines = [f"**{partial_note(result)}**", ""] if not result["complete"] else []
    for key, values in result["differs"].items():
        lines += [f"**Not the same in all runs: {key} ({', '.join(map(str, values))}).**", ""]
    lines += [line(header), line(["---", *["---:"] * (len(header) - 1)])]
    lines += [line(_cells(row, result["reference"])) for row in result["rows"]]
    rules = [f"- {name}: {rule}." for name, rule in result["rules"].items()]
    model = [f"Model: {result['model']['file']}, SHA-256 {result['model']['sha256']}.", ""] if "model" in result else []
    command = [f"Command: `{result['command']}`, SeENet {result['version']}."] if result["command"] else []
    return "\n".join([*lines, "", *rules, "- not resolved: the interval holds 0.", "", *model, *command]).rstrip() + "\n"


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: dict[str, Any], reference: str) -> list[str]:
    miou, paper = row["miou"], row["paper"]
    return [
        row["row"],
        "missing" if miou is None else f"{100 * miou['mean']:.2f}",
        "" if miou is None else "one seed" if miou["sd"] is None else f"{100 * miou['sd']:.2f}",
        f"{0 if miou is None else miou['seeds']} of {row['planned']}",
        "reference" if row["row"] == reference else difference_text(row["difference"]),
        f"{row['parameters'] / 1e6:.2f}",
        "unknown" if row["flops"] is None else f"{row['flops'] / 1e9:.2f}",
        "" if row["images_per_s"] is None else f"{row['images_per_s']:.2f}",
        "" if row["memory_mib"] is None else f"{row['memory_mib']:.0f}",
        "" if paper is None else f"{paper['miou']:.1f} ({paper['letter']}, {paper['backbone']})",
    ]


def difference_text(difference: dict[str, Any] | None) -> str:
    """`+1.20 (+0.40 to +2.00)` in points, of a difference in shares as results.json has it; what it does not say is added in words."""
    if difference is None:
        return "missing"
    interval = difference["interval"]
    bounds = "" if interval is None else f" ({100 * interval[0]:+.2f} to {100 * interval[1]:+.2f})"
    return f"{100 * difference['mean']:+.2f}{bounds}{RESOLVED[difference['resolved']]}"


COLUMNS = (
    "row", "complete", "seeds_done", "seeds_planned", "miou_mean", "miou_sd", "difference_mean", "difference_low", "difference_high",
    "difference_seeds", "parameters", "flops", "images_per_s", "memory_mib", "paper_row", "paper_backbone", "paper_voc_val_miou_percent",
)  # fmt: skip


def as_csv(result: dict[str, Any]) -> str:
    """One line a row, numbers as in results.json, empty where there is none; `complete` is false where a seed is missing."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in result["rows"]:
        miou, difference, paper = row["miou"] or {}, row["difference"] or {}, row["paper"] or {}
        low, high = difference.get("interval") or (None, None)
        done = miou.get("seeds", 0)
        writer.writerow([
            row["row"], "true" if done == row["planned"] else "false", done, row["planned"], miou.get("mean"), miou.get("sd"),
            difference.get("mean"), low, high, difference.get("seeds"), row["parameters"], row["flops"], row["images_per_s"],
            row["memory_mib"], paper.get("letter"), paper.get("backbone"), paper.get("miou"),
        ])  # fmt: skip
    return stream.getvalue()


def plot(result: dict[str, Any]) -> bytes:
    """PNG: each seed a dot, the mean a bar with its 95 % interval, rows from top to bottom. Measured numbers alone."""
    # Imported here: matplotlib is slow, and --dry-run draws nothing.
    from seenet.experiments.drawing import plot_of

    rows = result["rows"]
    figure, axes = plot_of(7, 1.4 + 0.42 * len(rows))
    for place, row in enumerate(rows):
        axes.scatter([100 * run["miou"] for run in row["runs"]], [place] * len(row["runs"]), s=22, color="#0072b2", alpha=0.6, zorder=2)
        if row["miou"]:
            low, high = row["miou"]["interval"] or (row["miou"]["mean"],) * 2
            axes.plot([100 * low, 100 * high], [place, place], color="#d55e00", linewidth=1.6, zorder=1)
            axes.plot([100 * row["miou"]["mean"]], [place], marker="|", markersize=15, markeredgewidth=2.4, color="#d55e00", zorder=3)
    axes.set_yticks(range(len(rows)), [row["row"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_ylabel(result["unit"])
    protocol = result["protocol"]
    axes.set_xlabel(f"mIoU on {protocol['data']}/{protocol['split']}, %" if protocol else "mIoU, %")
    axes.set_title("dot: a seed; bar: mean and its 95 % interval", fontsize=9, loc="left")
    if not result["complete"]:
        figure.suptitle(f"PARTIAL: {result['finished']} of {result['planned']} runs", color="#d55e00", fontsize=11, fontweight="bold")
    axes.grid(axis="x", alpha=0.3)
    return png_bytes(figure)
