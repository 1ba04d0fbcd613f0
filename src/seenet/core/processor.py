"""Processor, threads and memory of this machine, without importing torch."""

import errno
import os
import platform
import re
import resource
import sys
from functools import cache
from pathlib import Path

BF16 = frozenset(("avx512_bf16", "amx_bf16", "bf16"))
"""Linux flags of bf16 matrix instructions, on x86 and ARM."""
OUT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|"  # torch on a processor
    r"\bstd::bad_alloc\b|"  # C++ libraries
    r"Failed to allocate memory for requested buffer of size|"  # ONNX Runtime
    r"Failed to allocate \d+ bytes of memory|"  # OpenVINO
    r"Failed to (reserve|commit) memory for LazyBuffer|"
    r"\b(CUDA|CUDA driver|HIP|XPU) error: out of memory|"
    r"\b(CUDA|HIP|XPU|MPS backend) out of memory|"
    r"\bCU[A-Z]+_STATUS_([A-Z]+_)*ALLOC(ATION)?_FAILED\b|"  # cuBLAS, cuDNN, cuSOLVER
    r"Cannot allocate memory \(12\)"  # strerror and errno, as torch quotes them
)
"""Messages of libraries that ran out of memory. Narrow: other errors mention allocation too."""
VECTORS = BF16 | {"avx2", "avx512f", "avx512_vnni", "asimd", "sve"}


@cache
def fields() -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo; empty if there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n", maxsplit=1)[0].splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in lines}


def flags() -> frozenset[str]:
    """Return the instruction sets by Linux's names; empty on other systems."""
    found = fields()
    return frozenset((found.get("flags") or found.get("features") or "").split())


def has_bf16() -> bool:
    """Return whether the processor has bf16 matrix instructions; False if unknown."""
    return bool(flags() & BF16)


def name() -> str:
    """Return the processor model with its vector instructions, such as `AMD EPYC (avx2)`."""
    model = fields().get("model name") or platform.processor() or platform.machine()
    known = sorted(flags() & VECTORS)
    return f"{model} ({', '.join(known)})" if known else model


def cores() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """Return the number of threads for a network: `cores()`, or fewer by OMP_NUM_THREADS."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores(), int(limit)) if limit.isdigit() and int(limit) else cores()


def crowded() -> str:
    """Return a warning if other programs use all processors, else "".

    torch's threads wait in a busy loop, so that programs slow each other down. No warning if
    OMP_NUM_THREADS or OMP_WAIT_POLICY is set.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if (
        load < threads()
        or threads() == 1
        or any(name in os.environ for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"))
    ):
        return ""
    return (
        f"{load:.1f} programs already compute on these {threads()} processors; two that share "
        "them can take twenty times as long. Wait, or set OMP_WAIT_POLICY=PASSIVE for all of them "
        "(slower for one alone)"
    )


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error means out of memory, by its class or its message."""
    torch = sys.modules.get("torch")
    kinds = (MemoryError, torch.OutOfMemoryError) if torch else (MemoryError,)
    if isinstance(error, kinds) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return OUT_OF_MEMORY.search(str(error)) is not None


def limit_memory(limit: int) -> None:
    """Limit the memory of this process to so many bytes; a lower limit stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(
        resource.RLIMIT_DATA, (limit if soft == resource.RLIM_INFINITY else min(limit, soft), hard)
    )


def available_memory() -> int | None:
    """Return the bytes available without swapping; None if the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(
            int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")
        )
    except (OSError, StopIteration, ValueError):
        return None
