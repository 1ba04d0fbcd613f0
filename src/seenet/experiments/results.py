"""Results of an ablation, from the folders of its runs: results.json, tables and a plot."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import seenet
from seenet.core.files import replacing, sha256, write_text
from seenet.core.recipe_files import dump
from seenet.evaluation.pictures import png_bytes
from seenet.experiments.plan import Plan, Row, Run
from seenet.training.logging import read_metrics

RESULTS, TABLE, CSV, PLOT = FILES = ("results.json", "table.md", "table.csv", "plot.png")
PROTOCOL = (
    "data", "split", "images", "labels", "ignore_rule", "absent_rule", "size_rule", "scales",
    "flip", "precision", "precision_of_training",
)  # fmt: skip
"""Keys of val.json that say how a run was scored."""
RESOLVED = {True: "", False: ", not resolved", None: ", one seed"}


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (n - 1) and the mean's 95 % interval (Student's t) over seeds.

    Deviation and interval are None for one seed.
    """

    mean: float
    sd: float | None
    interval: tuple[float, float] | None
    seeds: int

    @property
    def resolved(self) -> bool | None:
        """Return whether 0 is outside the interval; None without an interval."""
        return None if self.interval is None else not self.interval[0] <= 0 <= self.interval[1]


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value: interval = mean +- t(0.975; n - 1) sd / sqrt(n)."""
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return Spread(mean, None, None, 1)
    from scipy.stats import t

    sd = float(np.std(values, ddof=1))
    half = float(t.ppf(0.975, count - 1)) * sd / count**0.5
    return Spread(mean, sd, (mean - half, mean + half), count)


def paired_difference(values: dict[int, float], reference: dict[int, float]) -> Spread | None:
    """Return the spread of value - reference over the seeds of both; None where they share none."""
    shared = sorted(values.keys() & reference.keys())
    return spread([values[seed] - reference[seed] for seed in shared]) if shared else None


def write_results(plan: Plan, failed: dict[str, str], command: str | None) -> dict[str, Any]:
    """Write the files of `FILES` to the plan's folder and return the content of results.json."""
    result = collect_results(plan, failed, command)
    # First: a folder with results.json may be written to again.
    write_text(plan.out / RESULTS, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    write_text(plan.out / TABLE, markdown(result))
    write_text(plan.out / CSV, as_csv(result))
    with replacing(plan.out / PLOT) as temporary:
        temporary.write_bytes(plot(result))
    return result


def collect_results(plan: Plan, failed: dict[str, str], command: str | None) -> dict[str, Any]:
    """Return the content of results.json: mIoU as a share (0..1), FLOPs, memory in MiB.

    `missing` names the runs that have not finished, `failed` the reasons of those that failed.
    `protocol` is the first run's; `differs` has the values of a key that is not the same in all
    runs (`precision: auto` may choose two).
    """
    results = {run.name: result for run in plan.runs if (result := run.result()) is not None}
    first = next(iter(results.values()), {})
    values = {
        key: sorted({json.dumps(result.get(key)) for result in results.values()})
        for key in PROTOCOL
    }
    height, width = plan.recipe.transforms.crop
    return {
        "complete": len(results) == len(plan.runs),
        "finished": len(results),
        "planned": len(plan.runs),
        "missing": [run.name for run in plan.runs if run.name not in results],
        "failed": failed,
        "unit": plan.unit,
        **plan.about,
        "reference": plan.reference.name,
        "rules": {
            "miou": "of the best validation of a run, the model it keeps; last_miou of the last "
            "one",
            "difference": "row - reference, paired by seed; interval: 95 %, Student t over the "
            "paired seeds",
            "flops": f"of one image of the crop's size, {height}x{width}",
            "images_per_s": "training, median over all steps of all seeds, on the machine where "
            "they ran",
            "memory_mib": "training, highest of all steps of all seeds: the device's on CUDA, else "
            "the process's",
            "paper": "Table 1 of the paper: VOC 2012 val, another data set, backbone and budget "
            "than measured here unless all are the same",
            **plan.rules,
        },
        "protocol": {key: first[key] for key in PROTOCOL if key in first},
        "differs": {
            key: list(map(json.loads, texts)) for key, texts in values.items() if len(texts) > 1
        },
        "rows": [_row(plan, row, results) for row in plan.rows],
        "recipe": dump(plan.recipe),
        "version": seenet.__version__,
        "command": command,
    }


def _row(plan: Plan, row: Row, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    runs = [run for run in plan.runs if run.name in results]
    own, reference = (
        {run.seed: float(results[run.name]["miou"]) for run in runs if run.row is which}
        for which in (row, plan.reference)
    )
    difference = None if row is plan.reference else paired_difference(own, reference)
    runs = [run for run in runs if run.row is row]
    steps = [entry for run in runs for entry in read_metrics(run.folder / "metrics.jsonl")]
    speeds = [entry["images_per_s"] for entry in steps if "images_per_s" in entry]
    return {
        "row": row.name,
        "settings": list(row.settings),
        "paper": None if row.paper is None else asdict(row.paper),
        "planned": plan.seeds,
        "miou": asdict(spread(list(own.values()))) if own else None,
        "difference": difference and {**asdict(difference), "resolved": difference.resolved},
        "parameters": row.parameters,
        "flops": row.flops,
        "output_stride": row.output_stride,
        "images_per_s": float(np.median(speeds)) if speeds else None,
        "memory_mib": max((e["memory_mib"] for e in steps if "memory_mib" in e), default=None),
        "runs": [_run(run, results[run.name]) for run in runs],
    }


def _run(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    steps = read_metrics(run.folder / "metrics.jsonl")
    validations = [None, *(entry["val"]["miou"] for entry in steps if "val" in entry)]
    model = run.folder / "model.safetensors"
    return {
        "seed": run.seed,
        "folder": str(run.folder),
        "miou": result["miou"],
        "step": result.get("step"),
        "last_miou": validations[-1],
        "absent": result.get("absent"),
        "model": {"file": str(model), "sha256": sha256(model)},
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the results as one table; the paper's mIoU has a column of its own."""
    protocol, missing = result["protocol"], result["missing"]
    where = (
        f"{protocol['data']}/{protocol['split']}, {protocol['images']} images"
        if protocol
        else "nothing yet"
    )
    lines = []
    if not result["complete"]:
        more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
        finished = f"{result['finished']} of {result['planned']} runs are finished"
        lines += [f"**PARTIAL: {finished}; missing: {', '.join(missing[:6])}{more}**", ""]
    for key, values in result["differs"].items():
        lines += [f"**Not the same in all runs: {key} ({', '.join(map(str, values))}).**", ""]
    header = [
        result["unit"], f"mIoU measured ({where}), %", "sd", "seeds",
        f"difference to {result['reference']}, points (95 % interval)", "parameters, M", "GFLOP",
        "images/s", "memory, MiB", "mIoU in the paper (VOC val), %",
    ]  # fmt: skip
    lines += [line(header), line(["---", *["---:"] * (len(header) - 1)])]
    lines += [line(_table_cells(row, result["reference"])) for row in result["rows"]]
    lines += ["", *(f"- {name}: {rule}." for name, rule in result["rules"].items())]
    lines += ["- not resolved: the interval holds 0.", ""]
    if "model" in result:
        model = result["model"]
        lines += [f"Model: {model['file']}, SHA-256 {model['sha256']}.", ""]
    if result["command"]:
        lines.append(f"Command: `{result['command']}`, SeENet {result['version']}.")
    return "\n".join(lines).rstrip() + "\n"


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table_cells(row: dict[str, Any], reference: str) -> list[str]:
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
    """Return a difference of shares in points, such as `+1.20 (+0.40 to +2.00), not resolved`."""
    if difference is None:
        return "missing"
    interval = difference["interval"]
    bounds = "" if interval is None else f" ({100 * interval[0]:+.2f} to {100 * interval[1]:+.2f})"
    return f"{100 * difference['mean']:+.2f}{bounds}{RESOLVED[difference['resolved']]}"


def as_csv(result: dict[str, Any]) -> str:
    """Return a line for each row: numbers as in results.json, empty where there is none."""
    rows = []
    for row in result["rows"]:
        miou, difference, paper = row["miou"] or {}, row["difference"] or {}, row["paper"] or {}
        low, high = difference.get("interval") or (None, None)
        done = miou.get("seeds", 0)
        rows.append({
            "row": row["row"], "complete": "true" if done == row["planned"] else "false",
            "seeds_done": done, "seeds_planned": row["planned"],
            "miou_mean": miou.get("mean"), "miou_sd": miou.get("sd"),
            "difference_mean": difference.get("mean"), "difference_low": low,
            "difference_high": high, "difference_seeds": difference.get("seeds"),
            "parameters": row["parameters"], "flops": row["flops"],
            "images_per_s": row["images_per_s"], "memory_mib": row["memory_mib"],
            "paper_row": paper.get("letter"), "paper_backbone": paper.get("backbone"),
            "paper_voc_val_miou_percent": paper.get("miou"),
        })  # fmt: skip
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def plot(result: dict[str, Any]) -> bytes:
    """Draw rows from top to bottom: a dot for each seed, a bar for the mean; return a PNG."""
    # Imported here: matplotlib is slow to import, and --dry-run draws nothing.
    from seenet.experiments.drawing import plot_of

    rows, protocol, orange = result["rows"], result["protocol"], "#d55e00"
    figure, axes = plot_of(7, 1.4 + 0.42 * len(rows))
    for place, row in enumerate(rows):
        seeds = [100 * run["miou"] for run in row["runs"]]
        axes.scatter(seeds, [place] * len(seeds), s=22, color="#0072b2", alpha=0.6, zorder=2)
        if row["miou"]:
            mean = row["miou"]["mean"]
            low, high = row["miou"]["interval"] or (mean, mean)
            axes.errorbar(
                100 * mean, place, xerr=[[100 * (mean - low)], [100 * (high - mean)]], color=orange,
                elinewidth=1.6, marker="|", markersize=15, markeredgewidth=2.4, zorder=3,
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), [row["row"] for row in rows])
    where = f" on {protocol['data']}/{protocol['split']}" if protocol else ""
    axes.set(ylim=(len(rows) - 0.5, -0.5), ylabel=result["unit"], xlabel=f"mIoU{where}, %")
    axes.set_title("dot: a seed; bar: mean and its 95 % interval", fontsize=9, loc="left")
    if not result["complete"]:
        title = f"PARTIAL: {result['finished']} of {result['planned']} runs"
        figure.suptitle(title, color=orange, fontsize=11, fontweight="bold")
    axes.grid(axis="x", alpha=0.3)
    return png_bytes(figure)
