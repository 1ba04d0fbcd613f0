"""The right numbers in the right columns, never a partial table that looks final; intervals against scipy's own test."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import ttest_rel

from seenet.experiments.results import as_csv, markdown, outcome, paired_difference, plot, spread
from tests.experiments.doubles import pretend_trained, tiny_plan

SCORES = {
    ("baseline", 0): 0.70,
    ("baseline", 1): 0.71,
    ("baseline", 2): 0.69,
    ("seenet", 0): 0.73,
    ("seenet", 1): 0.72,
    ("seenet", 2): 0.74,
}


def test_complete(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, seeds=3)
    for run in plan.runs:
        pretend_trained(run, SCORES[run.cell.name, run.seed])
    result = outcome(plan, failed={}, command="seenet ablate shapes")
    assert result["complete"] and result["missing"] == []
    baseline, seenet = result["rows"]
    assert baseline["miou"]["mean"] == pytest.approx(0.70) and baseline["miou"]["sd"] == pytest.approx(0.01)
    expected = ttest_rel([0.73, 0.72, 0.74], [0.70, 0.71, 0.69]).confidence_interval(0.95)
    assert seenet["difference"]["interval"] == pytest.approx([expected.low, expected.high])
    assert seenet["difference"]["resolved"] is bool(expected.low > 0)
    assert (seenet["images_per_s"], seenet["memory_mib"], baseline["difference"]) == (3.0, 310, None)
    assert [run["last_miou"] for run in baseline["runs"]] == pytest.approx([0.69, 0.70, 0.68])
    text = markdown(result)
    assert "PARTIAL" not in text
    rows = {cells[1]: cells[2:-1] for line in text.splitlines() if len(cells := [cell.strip() for cell in line.split("|")]) > 3}
    assert rows["baseline"][:4] == ["70.00", "1.00", "3 of 3", "reference"]
    assert rows["seenet"][3].startswith("+3.00 (")
    assert rows["seenet"][-1] == "78.1 (j, resnet101)" and rows["baseline"][-1] == "74.9 (c, resnet101)"
    (first, second) = csv.DictReader(io.StringIO(as_csv(result)))
    assert float(second["miou_mean"]) == pytest.approx(0.73) and second["paper_voc_val_miou_percent"] == "78.1"
    assert first["difference_mean"] == "" and first["complete"] == "true"
    Image.open(io.BytesIO(plot(result))).verify()


def test_partial_results_say_so(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, rows="c,j,torchvision-fcn", seeds=2)
    for run in plan.runs[:3]:
        pretend_trained(run, 0.5 + run.seed / 10)
    # An interrupted one has a model and a score already, and counts for nothing.
    pretend_trained(plan.runs[4], 0.9, code=143)
    result = outcome(plan, failed={"seenet-seed-1": "exit 5: loss nan"}, command=None)
    assert not result["complete"]
    assert result["missing"] == ["baseline-seed-1", "seenet-seed-1", "torchvision-fcn-seed-1"]
    text = markdown(result)
    assert text.startswith("**PARTIAL: 3 of 6 runs are finished; missing: ")
    assert "one seed" in text and "1 of 2" in text
    assert [row["complete"] for row in csv.DictReader(io.StringIO(as_csv(result)))] == ["false"] * 3
    Image.open(io.BytesIO(plot(result))).verify()


def test_a_protocol_that_differs_is_said(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, seeds=1)
    for run, precision in zip(plan.runs, ("bf16", "fp32"), strict=True):
        pretend_trained(run, 0.5)
        path = run.folder / "val.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "precision_of_training": precision}))
    result = outcome(plan, failed={}, command=None)
    assert result["differs"] == {"precision_of_training": ["bf16", "fp32"]}
    assert "Not the same in all runs: precision_of_training (bf16, fp32)." in markdown(result)


def test_nothing_yet(tmp_path: Path) -> None:
    result = outcome(tiny_plan(tmp_path), failed={}, command=None)
    assert "PARTIAL: 0 of 4" in markdown(result) and "missing" in markdown(result)
    plot(result)


def test_paired_interval_is_the_paired_t_tests() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(0.7, 0.02, 5), generator.normal(0.68, 0.02, 5)
    found = paired_difference(dict(enumerate(ours)), dict(enumerate(theirs)))
    expected = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found is not None and found.interval == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx((ours - theirs).mean())
    assert found.sd == pytest.approx((ours - theirs).std(ddof=1))
    assert found.resolved == (not expected.low <= 0 <= expected.high)


def test_only_seeds_that_both_have_are_compared() -> None:
    found = paired_difference({0: 0.5, 1: 0.6, 7: 0.9}, {1: 0.5, 0: 0.45, 3: 0.1})
    assert found is not None and found.count == 2
    assert found.mean == pytest.approx(0.075)
    assert paired_difference({0: 0.5}, {1: 0.5}) is None


def test_one_value_has_no_interval() -> None:
    found = spread([0.4])
    assert (found.mean, found.sd, found.interval, found.resolved) == (0.4, None, None, None)
    assert spread([0.4, 0.4]).interval == (0.4, 0.4)
