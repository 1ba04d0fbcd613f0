"""The benchmarks run, their tables are right, and the bars hold that do not depend on the speed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.bars import cells
from benchmarks.cases import Case
from benchmarks.measuring import alone, interleaved, peak_mib
from benchmarks.page import RESULTS, write
from benchmarks.page import table as page_table

ROOT = Path(__file__).parents[1]


PROVENANCE = {
    "commit": "abc",
    "sources": "def",
    "versions": {"torch": "2"},
    "threads": 2,
    "date": "2026-01-01",
    "load": 0.1,
    "processor": {"name": "Processor X", "flags": ["avx2"], "torch": "AVX2"},
}


def comparison(name: str, backbone: str, ratio: float, **more: object) -> dict[str, Any]:
    """Make a result as `benchmarks.compare` does."""

    def row(ratio: float) -> dict[str, object]:
        spread = {"median": ratio, "low": ratio - 0.1, "high": ratio + 0.1}
        return {"ratio": spread, "gflop": 100.0, "peak_mib": 300, "of_matmul": 0.8}

    return {
        "name": name,
        "line": 2,
        "kind": "inference",
        "backbone": backbone,
        "contestants": {"seenet": row(ratio), "deeplabv3": row(1.0), "deeplabv3plus": row(0.9)},
        "over_deeplabv3plus": {"median": ratio / 0.9, "low": 0.9, "high": 1.2},
        **more,
    }


def write_results(folder: Path, *results: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        text = json.dumps({**result, "provenance": PROVENANCE})
        (folder / f"{result['name']}.json").write_text(text)
    return folder


def test_table_shows_bars_that_are_met_not_met_and_not_run(tmp_path: Path) -> None:
    write_results(
        tmp_path,
        comparison("fast", "resnet50", 1.04),
        comparison("slow", "resnet50", 0.97, others=0.3),
        comparison("enough", "resnet18", 0.95),
        comparison("light", "tf_efficientnet_lite0", 0.92),
        comparison("none", "resnet50", 1, skipped="the processor has no bf16"),
    )
    rows = {row[1]: row for row in cells(tmp_path)}
    met = {name: row[4] for name, row in rows.items()}
    assert met == {"fast": "yes", "slow": "NO", "enough": "yes", "light": "yes", "none": ""}
    assert "others had 30 %" in rows["slow"][-1]
    assert rows["none"][2] == "not run" and "no bf16" in rows["none"][-1]


def test_page_has_table_plot_and_machine(tmp_path: Path) -> None:
    write_results(tmp_path / "avx2", comparison("fast", "resnet50", 1.04))
    write(tmp_path, tmp_path / "docs")
    text = (tmp_path / "docs" / "performance.md").read_text(encoding="utf-8")
    row = "| 2 | fast | 1.04 (0.94 to 1.14) | ≥ 1, aim 1.1 | yes | 0.90 | 100 | 300 | 80 % |"
    assert row in text
    assert "Processor X (avx2; torch: AVX2), 2 threads; commit abc" in text
    for image in re.findall(r"\((images/.*?)\)", text):
        assert (tmp_path / "docs" / image).read_bytes().startswith(b"\x89PNG")


def test_committed_page_is_generated_from_the_committed_results() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    folders = [path for path in RESULTS.iterdir() if path.is_dir()]
    assert folders and not list(RESULTS.glob("*.json"))
    for folder in folders:
        assert all(line in page for line in page_table(folder)), "run python -m benchmarks.page"


def test_rows_and_plots_of_the_other_kinds_of_results(tmp_path: Path) -> None:
    def memory(name: str, kind: str, seenet: int) -> dict[str, Any]:
        mib = {"seenet": seenet, "deeplabv3": 800, "deeplabv3plus": 700}
        return {"name": name, "line": 4, "kind": kind, "peak_mib": mib}

    growth = {"line": 8, "axis": "size", "seconds": {"median": 0.5, "low": 0.4, "high": 0.6}}
    runs = [
        {"network": network, "split": "CamVid val", "miou": miou, "images_per_s": 8.0}
        for network, miou in (("seenet", 0.62), ("deeplabv3plus", 0.6))
    ]
    speed = {"median": 1.01, "low": 1, "high": 1.1}
    folder = write_results(
        tmp_path / "avx2",
        memory("a", "training", 900),
        memory("a2", "training", 930),
        memory("a3", "prediction", 801),
        {"name": "b", "line": 5, "values": {"scales and flips": 1.02, "confusion matrix": 0.03}},
        {"name": "c", **growth, "value": 256, "mib": 100},
        {"name": "d", **growth, "value": 512, "mib": 400},
        {"name": "e", "line": 2, "minutes": 30, "runs": runs, "speed_over_deeplabv3plus": speed},
    )
    rows = cells(folder)
    assert ("4", "a", "900 MiB", "<= 1.15 of DeepLabv3's 800 MiB") in [row[:4] for row in rows]
    assert [row[4] for row in rows if row[0] == "4"] == ["yes", "NO", "NO"]
    assert [row[4] for row in rows if row[0] == "5"] == ["yes", "NO"]
    assert ("8", "growth: size 512", "0.5 s a picture, 400 MiB") in [row[:3] for row in rows]
    assert ("62.0 %", ">= DeepLabv3+", "yes", "60.0 %") in [row[2:6] for row in rows]
    write(tmp_path, tmp_path / "docs")
    assert sorted(path.name for path in (tmp_path / "docs" / "images").iterdir()) == [
        "performance-avx2-equal-time.png",
        "performance-avx2-growth.png",
    ]


def test_contestants_alternate_and_a_dead_child_is_reported() -> None:
    order: list[str] = []
    works = {name: lambda name=name: order.append(name) for name in "ab"}
    found = interleaved(works, seconds=0, least=3)
    # A pass each for the memory, then three rounds with alternating order.
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(times) for name, times in found["seconds"].items()} == {"a": 3, "b": 3}
    assert alone(lambda: {"seven": 7}) == {"seven": 7}
    assert "ZeroDivisionError" in alone(lambda: {"nothing": 1 / 0})["error"]
    assert "ended with 3" in alone(lambda: os._exit(3))["error"]


def test_peak_memory_is_measured() -> None:
    block = 64 * 2**20
    assert 60 < peak_mib(lambda: bytearray(block).count(1)) < 80


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["training", "inference"])
def test_a_small_case_runs(kind: str) -> None:
    case = Case(1, kind, "resnet18", (33, 47), 2, seconds=0)
    program = (
        "import json\nfrom benchmarks.cases import Case\nfrom benchmarks.compare import compare\n"
        f"print(json.dumps(compare({case!r})))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    text = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment)
    found = json.loads(text)
    assert found["rounds"] == 3
    assert set(found["contestants"]) == {"seenet", "deeplabv3", "deeplabv3plus"}
    for row in found["contestants"].values():
        assert row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["high"]
        assert row["gflop"] > 0 and row["peak_mib"] >= 0 and row["ratio"]["median"] > 0
    assert found["contestants"]["deeplabv3"]["ratio"]["median"] == 1
