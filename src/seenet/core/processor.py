"""Processor, threads and memory of this machine, asked without torch."""

import errno
import os
import platform
import re
import resource
import sys
from functools import cache
from pathlib import Path

BF16 = frozenset(("avx512_bf16", "amx_bf16", "bf16"))
"""Flags under which Linux lists matrix instructions in bf16, on x86 and ARM."""
SHORT = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|"  # torch on a processor
    r"\bstd::bad_alloc\b|"  # what is written in C++, by way of any of them
    r"Failed to allocate memory for requested buffer of size|"  # ONNX Runtime
    r"Failed to allocate \d+ bytes of memory|Failed to (reserve|commit) memory for LazyBuffer|"  # OpenVINO
    r"\b(CUDA|CUDA driver|HIP|XPU) error: out of memory|\b(CUDA|HIP|XPU|MPS backend) out of memory|"
    r"\bCU[A-Z]+_STATUS_([A-Z]+_)*ALLOC(ATION)?_FAILED\b|"  # cuBLAS, cuDNN, cuSOLVER
    r"Cannot allocate memory \(12\)"  # the system's word, with its number, as torch quotes it
)
"""What libraries say where memory is short; other texts speak of allocations too."""
VECTORS = BF16 | {"avx2", "avx512f", "avx512_vnni", "asimd", "sve"}


@cache
def fields() -> dict[str, str]:
    """Read the fields of the first processor in /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n", maxsplit=1)[0].splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in lines}


def flags() -> frozenset[str]:
    """List instruction sets by Linux's names; empty elsewhere."""
    found = fields()
    return frozenset((found.get("flags") or found.get("features") or "").split())


def has_bf16() -> bool:
    """Tell whether the processor multiplies matrices in bf16 on its own; False where that is not known."""
    return bool(flags() & BF16)


def name() -> str:
    """Name the model and its vector instructions, such as `AMD EPYC (avx2)`."""
    model = fields().get("model name") or platform.processor() or platform.machine()
    known = sorted(flags() & VECTORS)
    return f"{model} ({', '.join(known)})" if known else model


def threads() -> int:
    """Count the threads that a network gets: the processors that this process may use, or fewer by OMP_NUM_THREADS."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(asked)) if asked.isdigit() and int(asked) else allowed


def crowded() -> str:
    """Warn where others compute here already and nothing was set for it, else "": torch's threads wait busily, also for others'."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < threads() or threads() == 1 or any(name in os.environ for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")):
        return ""
    return (
        f"{load:.1f} programs compute here already, on {threads()} processors; two that share them can take twenty times as long: wait, or "
        "set OMP_WAIT_POLICY=PASSIVE for all of them (alone that is slower)"
    )


def lacks_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory is short: by its class, or in the words of a library that has none (`SHORT`)."""
    torch = sys.modules.get("torch")
    kinds = (MemoryError, torch.OutOfMemoryError) if torch else (MemoryError,)
    if isinstance(error, kinds) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return SHORT.search(str(error)) is not None


def limit_memory(limit: int) -> None:
    """Limit this process to so many bytes; a lower limit that it has stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if soft == resource.RLIM_INFINITY else min(limit, soft), hard))


def available_memory() -> int | None:
    """Count the bytes that could be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
