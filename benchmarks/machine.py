"""Provenance of a result: place, time, machine and code."""

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
"""A folder of results for each kind of processor."""
SRC = ROOT / "src" / "seenet"
PACKAGES = (
    "seenet",
    "torch",
    "torchvision",
    "timm",
    "segmentation-models-pytorch",
    "onnxruntime",
    "openvino",
    "numpy",
)
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16")


def provenance() -> dict[str, Any]:
    """Return the current commit, versions, CPU, threads, date and load."""
    import torch

    return {
        "commit": commit(),
        "sources": sources(),
        "versions": versions(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": round(os.getloadavg()[0], 2),
    }


def processor() -> dict[str, Any]:
    """Return the CPU's name, those of `FLAGS` that it has, and torch's capability."""
    import torch

    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    fields = {
        line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in text.splitlines()
    }
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "name": fields.get("model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "torch": torch.backends.cpu.get_cpu_capability(),
    }


def kind() -> str:
    """Name the kind of CPU, for the folder of its results: avx2, avx512-bf16, amx-bf16, ..."""
    # Products of bf16 in AMX's tiles are several times as fast as in AVX-512's vectors.
    vectors = "amx" if "amx_bf16" in processor()["flags"] else str(processor()["torch"]).lower()
    return "-".join([vectors, *(["bf16"] if has_bf16() else [])])


def has_bf16() -> bool:
    """Tell whether the CPU has instructions for bf16."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(processor()["flags"]))


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


@cache
def commit() -> str:
    """Return the commit, with + where files differ from it; `none` outside of a checkout."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD").strip()
        changed = _git(
            "status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks/*.py"
        )
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return head + ("+" if changed.strip() else "")


@cache
def sources() -> str:
    """Hash the code that is measured: an interrupted run continues only with the same code."""
    digest = hashlib.sha256()
    measured = [
        path
        for part in ("core", "model", "prediction", "training", "export")
        for path in (SRC / part).rglob("*.py")
    ]
    for path in sorted(
        [
            *measured,
            *(
                ROOT / "benchmarks" / f"{name}.py"
                for name in ("contestants", "training", "inference")
            ),
        ]
    ):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
