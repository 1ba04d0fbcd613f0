"""Numbers of an ablation: tables, paired intervals against scipy's t-test, partial results."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import ttest_rel

from seenet.experiments.plan import Plan
from seenet.experiments.results import (
    Spread,
    as_csv,
    collect_results,
    markdown,
    paired_difference,
    plot,
    spread,
)
from tests.experiments.doubles import pretend_trained, tiny_plan

MIOUS = {"baseline": (0.70, 0.71, 0.69), "seenet": (0.73, 0.72, 0.74)}


def collect(plan: Plan) -> tuple[dict[str, Any], str, list[dict[str, str]]]:
    """Return the results, the table and the rows of the CSV; draw the plot."""
    result = collect_results(plan, {}, "seenet ablate shapes")
    Image.open(io.BytesIO(plot(result))).verify()
    return result, markdown(result), list(csv.DictReader(io.StringIO(as_csv(result))))


def test_complete(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, seeds=3)
    for run in plan.runs:
        pretend_trained(run, MIOUS[run.row.name][run.seed])
    result, table, lines = collect(plan)
    assert result["complete"] and result["missing"] == [] and "PARTIAL" not in table
    baseline, seenet = result["rows"]
    assert [baseline["miou"][key] for key in ("mean", "sd")] == pytest.approx([0.70, 0.01])
    assert [run["last_miou"] for run in baseline["runs"]] == pytest.approx([0.69, 0.70, 0.68])
    assert baseline["difference"] is None
    assert seenet["difference"]["mean"] == pytest.approx(0.03)
    assert (seenet["images_per_s"], seenet["memory_mib"]) == (3.0, 310)
    first, second = ([cell.strip() for cell in row.split("|")] for row in table.splitlines()[2:4])
    assert first[1:6] == ["baseline", "70.00", "1.00", "3 of 3", "reference"]
    assert second[5].startswith("+3.00 (")
    assert (first[-2], second[-2]) == ("74.9 (c, resnet101)", "78.1 (j, resnet101)")
    assert float(lines[1]["miou_mean"]) == pytest.approx(0.73)
    assert lines[1]["paper_voc_val_miou_percent"] == "78.1"
    assert (lines[0]["difference_mean"], lines[0]["complete"]) == ("", "true")


def test_partial_results_say_so(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, rows="c,j,torchvision-fcn")
    assert collect(plan)[1].startswith("**PARTIAL: 0 of 6 ")
    for run in plan.runs[:3]:
        pretend_trained(run, 0.5 + run.seed / 10)
    # Interrupted: it has a model and a score already, and does not count.
    pretend_trained(plan.runs[4], 0.9, code=143)
    result, table, lines = collect(plan)
    assert not result["complete"]
    assert result["missing"] == ["baseline-seed-1", "seenet-seed-1", "torchvision-fcn-seed-1"]
    assert table.startswith("**PARTIAL: 3 of 6 runs are finished; missing: baseline-seed-1, ")
    assert "one seed" in table and "1 of 2" in table
    assert [line["complete"] for line in lines] == ["false"] * 3


def test_a_protocol_that_differs_is_named(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, seeds=1)
    for run, precision in zip(plan.runs, ("bf16", "fp32"), strict=True):
        pretend_trained(run, 0.5, precision_of_training=precision)
    result, table, _ = collect(plan)
    assert result["differs"] == {"precision_of_training": ["bf16", "fp32"]}
    assert "Not the same in all runs: precision_of_training (bf16, fp32)." in table


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(0.7, 0.02, 5), generator.normal(0.68, 0.02, 5)
    # Seed 7 is not in both.
    found = paired_difference({**dict(enumerate(ours)), 7: 0.9}, dict(enumerate(theirs)))
    low, high = ttest_rel(ours, theirs).confidence_interval(0.95)
    difference = ours - theirs
    assert found is not None and found.seeds == 5
    numbers = [found.mean, found.sd, *(found.interval or ())]
    assert numbers == pytest.approx([difference.mean(), difference.std(ddof=1), low, high])
    assert found.resolved == (not low <= 0 <= high)
    assert paired_difference({0: 0.5}, {1: 0.5}) is None


def test_one_value_has_no_interval() -> None:
    assert spread([0.4]) == Spread(0.4, None, None, 1) and spread([0.4]).resolved is None
    assert spread([0.4, 0.4]).interval == (0.4, 0.4)
