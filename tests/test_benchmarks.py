"""The benchmarks run as they stand there, and the bars that do not depend on the machine's speed hold."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.bars import table
from benchmarks.cases import Case
from benchmarks.measuring import alone, interleaved, peak_mib
from benchmarks.page import RESULTS, write
from benchmarks.page import table as page_table

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_counting_costs_little_beside_the_network(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/boundaries.py", "--repetitions", "6", "--threads", "1", "--out", str(tmp_path / "found.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("holds") == 3, done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["size"] == [360, 480]
    assert found["widths"] == [1, 3, 5, 10, 21, 30, 40]
    assert 0 < found["share_of_forward"]["matrix"] < found["share_of_forward"]["bands"]
    assert found["share_of_forward"]["matrix"] < found["share_of_forward"]["trimap"]
    assert found["processor"]
    assert found["torch"]


def result(name: str, backbone: str, seenet: float, **more: object) -> dict[str, object]:
    """A result as `benchmarks.run.compare` makes it."""

    def row(ratio: float) -> dict[str, object]:
        spread = {"median": ratio, "low": ratio - 0.1, "high": ratio + 0.1}
        return {"seconds": spread, "images_per_s": 1.0, "gflop": 100.0, "peak_mib": 300, "of_matmul": 0.8, "ratio": spread}

    return {
        "name": name, "line": 2, "kind": "inference", "backbone": backbone, "size": [360, 480], "batch": 1, "runtime": "eager",
        "precision": "fp32", "full": False, "rounds": 3, "others": 0.0, "matmul_gflops": 100.0,
        "contestants": {"seenet": row(seenet), "deeplabv3": row(1.0), "deeplabv3plus": row(0.9)},
        "over_deeplabv3plus": {"median": seenet / 0.9, "low": 0.9, "high": 1.2},
        "provenance": {
            "commit": "abc", "sources": "def", "versions": {"torch": "2"}, "threads": 2, "date": "2026-01-01", "load": 0.1,
            "processor": {"name": "Processor X", "flags": ["avx2"], "torch": "AVX2"},
        },
        **more,
    }  # fmt: skip


def test_the_table_says_what_is_met_what_is_not_and_what_was_not_run(tmp_path: Path) -> None:
    for one in (
        result("fast", "resnet50", 1.04),
        result("slow", "resnet50", 0.97, others=0.3),
        result("enough", "resnet18", 0.95),
        result("light", "tf_efficientnet_lite0", 0.92),
        {**result("none", "resnet50", 1), "skipped": "the processor has no bf16"},
    ):
        (tmp_path / f"{one['name']}.json").write_text(json.dumps(one))
    lines = {line.split()[1]: line for line in table(tmp_path).splitlines()}
    assert {name: " yes " in lines[name] for name in ("fast", "slow", "enough", "light")} == {
        "fast": True, "slow": False, "enough": True, "light": True,
    }  # fmt: skip
    assert "NO" in lines["slow"] and "others had 30 %" in lines["slow"]
    assert "no bf16" in lines["none"] and "not run" in lines["none"]


def test_the_page_shows_table_plot_and_machine(tmp_path: Path) -> None:
    (tmp_path / "fast.json").write_text(json.dumps(result("fast", "resnet50", 1.04)))
    write(tmp_path, tmp_path / "docs")
    text = (tmp_path / "docs" / "performance.md").read_text(encoding="utf-8")
    assert "| 2 | fast | 1.04 (0.94 to 1.14) | ≥ 1, aim 1.1 | yes | 0.90 | 100 | 300 | 80 % |" in text
    assert "Processor X (avx2; torch: AVX2), 2 threads; commit abc" in text
    for picture in re.findall(r"\((images/.*?)\)", text):
        assert (tmp_path / "docs" / picture).read_bytes().startswith(b"\x89PNG")


def test_the_committed_page_is_generated_from_the_committed_results() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert all(line in page for line in page_table(RESULTS)), "run python -m benchmarks.page"


def test_memory_values_growth_and_equal_time_have_their_rows_and_plots(tmp_path: Path) -> None:
    about = result("any", "resnet50", 1)["provenance"]
    point = {"line": 8, "axis": "size", "seconds": {"median": 0.5, "low": 0.4, "high": 0.6}, "mib": 100}
    runs = [
        {"network": network, "split": "CamVid val", "miou": miou, "images_per_s": 8.0}
        for network, miou in (("seenet", 0.62), ("deeplabv3plus", 0.6))
    ]
    for one in (
        {"name": "a", "line": 4, "kind": "training", "peak_mib": {"seenet": 900, "deeplabv3": 800, "deeplabv3plus": 700}},
        {"name": "a2", "line": 4, "kind": "training", "peak_mib": {"seenet": 930, "deeplabv3": 800, "deeplabv3plus": 700}},
        {"name": "a3", "line": 4, "kind": "prediction", "peak_mib": {"seenet": 801, "deeplabv3": 800, "deeplabv3plus": 700}},
        {"name": "b", "line": 5, "values": {"scales and flips": 1.02, "confusion matrix": 0.03}},
        {"name": "c", **point, "value": 256},
        {"name": "d", **point, "value": 512, "mib": 400},
        {"name": "e", "line": 2, "minutes": 30, "runs": runs, "speed_over_deeplabv3plus": {"median": 1.01, "low": 1, "high": 1.1}},
    ):
        (tmp_path / f"{one['name']}.json").write_text(json.dumps({**one, "provenance": about}))
    rows = [re.split("  +", line) for line in table(tmp_path).splitlines()]
    assert ["4", "a", "900 MiB", "<= 1.15 of DeepLabv3's 800 MiB", "yes", "700 MiB"] in rows
    assert [row[4] for row in rows if row[0] == "4"] == ["yes", "NO", "NO"]
    assert [row[-1] for row in rows if row[0] == "5"] == ["yes", "NO"]
    assert ["8", "growth: size 512", "0.5 s a picture, 400 MiB"] in rows
    assert ["2", "light networks after 30 minutes: mIoU on CamVid val", "62.0 %", ">= DeepLabv3+", "yes", "60.0 %"] in rows
    write(tmp_path, tmp_path / "docs")
    assert sorted(path.name for path in (tmp_path / "docs" / "images").iterdir()) == [
        "performance-equal-time.png",
        "performance-growth.png",
    ]


def test_works_take_turns_and_a_dead_child_is_told() -> None:
    order: list[str] = []
    found = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, seconds=0, least=3)
    # First one pass each for the memory, then three rounds that begin with another one.
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(times) for name, times in found["seconds"].items()} == {"a": 3, "b": 3}
    assert alone(lambda: {"seven": 7}) == {"seven": 7}
    assert "ValueError: no such" in alone(_raise)["error"]
    assert "ended with 3" in alone(lambda: os._exit(3))["error"]


def _raise() -> dict[str, object]:
    raise ValueError("no such")


def test_the_memory_of_a_work_is_measured() -> None:
    block = 64 * 2**20
    assert 60 < peak_mib(lambda: bytearray(block).count(1)) < 80


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [Case(1, "training", "resnet18", (33, 47), 2, seconds=0), Case(2, "inference", "resnet18", (33, 47), 1, seconds=0)]
)
def test_a_small_case_runs(case: Case, tmp_path: Path) -> None:
    program = (
        f"import json; from benchmarks.cases import Case; from benchmarks.compare import compare; print(json.dumps(compare({case!r})))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "error" not in found, found
    assert found["rounds"] == 3
    assert set(found["contestants"]) == {"seenet", "deeplabv3", "deeplabv3plus"}
    for row in found["contestants"].values():
        assert row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["high"]
        assert row["gflop"] > 0 and row["peak_mib"] >= 0 and row["ratio"]["median"] > 0
    assert found["contestants"]["deeplabv3"]["ratio"]["median"] == 1
