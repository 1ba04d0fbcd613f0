import json
import re
from pathlib import Path

import numpy as np
import pytest

from seenet.report.figures import curves, points, running_mean
from seenet.training.logging import read_metrics


@pytest.mark.parametrize("width", [1, 4, 5, 99])
def test_running_mean_equals_a_slow_one(width: int) -> None:
    values = np.random.default_rng(0).normal(size=23)
    half = width // 2
    slow = [values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))]
    assert running_mean(values.tolist(), width) == pytest.approx(slow)


def test_damaged_lines_and_infinite_values_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": NaN}\n[1]\n'
        '{"step": 2, "val": {"miou": null}}\n{"step": 3, "lo'
    )
    entries = read_metrics(path)
    assert points(entries, "loss") == [(1, 2.0)] and points(entries, "val", "miou") == []
    assert len(curves(entries)) == 1 and curves([]) == []


def test_curves_take_their_colours_from_the_page_and_share_no_id() -> None:
    entries = [
        {"step": s, "loss": 1 / s, "rate": 0.1 / s, "val": {"miou": 0.5 - 0.01 * s, "loss": 1.0}}
        for s in range(1, 9)
    ]
    drawn = curves(entries)
    assert [caption.split()[0] for caption, _ in drawn] == ["Training", "mIoU", "Learning"]
    assert "49.0 % at step 1" in drawn[1][0]
    ids = [name for _, svg in drawn for name in re.findall(r'\bid="([^"]*)"', svg)]
    assert len(ids) == len(set(ids)) > 10
    for _, svg in drawn:
        assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg)
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#000000"}
        assert set(re.findall(r'(?:url\(#|href="#)([^")]*)', svg)) <= set(ids)
        assert "var(--blue)" in svg and "var(--soft)" in svg
    assert curves(json.loads(json.dumps(entries))) == drawn
