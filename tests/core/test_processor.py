"""The processor as Linux describes it, threads, a busy machine, and errors that mean no memory."""

import sys
from pathlib import Path

import pytest
import torch

from seenet.core import processor

X86 = """processor\t: 0
model name\t: Some Server @ 2.0GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_bf16 amx_bf16
bugs\t\t:

processor\t: 1
model name\t: Some Server @ 2.0GHz
flags\t\t: fpu sse2 avx2
"""
OLDER = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512fake\n\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("text", "bf16", "name"),
    [
        (X86, True, "Some Server @ 2.0GHz (amx_bf16, avx2, avx512_bf16, avx512f)"),
        (OLDER, False, "AMD EPYC (avx2)"),
        (ARM, True, "(asimd, bf16)"),
        ("", False, ""),
    ],
)
def test_cpuinfo(text: str, bf16: bool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor.fields.cache_clear()
    monkeypatch.setattr(Path, "read_text", lambda path, **_: text)
    try:
        assert processor.has_bf16() is bf16
        assert processor.name() and processor.name().endswith(name)
    finally:
        processor.fields.cache_clear()


def test_omp_num_threads_limits_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    every = processor.cores()
    for text, expected in (("1", 1), ("1000", every), ("0", every), ("many", every), ("", every)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert processor.threads() == expected


@pytest.mark.parametrize(
    ("load", "policy", "warns"), [(1.9, None, False), (2.4, None, True), (2.4, "PASSIVE", False)]
)
def test_a_busy_machine_is_warned_of(
    load: float, policy: str | None, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("OMP_NUM_THREADS", None), ("OMP_WAIT_POLICY", policy)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(processor, "threads", lambda: 2)
    monkeypatch.setattr(processor.os, "getloadavg", lambda: (load, 0, 0))
    assert processor.crowded().startswith("2.4 programs already compute") == warns


OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of"
    ),
    OSError(12, "Cannot allocate memory"),
    # Messages seen with the versions of requirements/.
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
        "memory: you tried to allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)"
    ),
    Exception(
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. "
        "Name:'z_nchwc' Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc"
        ":360 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*)"
        " Failed to allocate memory for requested buffer of size 2304000000\n"
    ),
    Exception(
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while "
        "running Conv node. : std::bad_alloc"
    ),
    RuntimeError(
        "Exception from src/inference/src/cpp/infer_request.cpp:224:\nCheck 'ptr' failed at "
        "src/plugins/intel_cpu/src/cpu_memory.cpp:257:\n"
        "Failed to allocate 108000000 bytes of memory\n\n"
    ),
    # Messages in the sources of the libraries.
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: "
        "you tried to allocate 8 bytes."
    ),
    RuntimeError("std::bad_alloc"),
    RuntimeError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some "
        "other API call"
    ),
    RuntimeError(
        "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, "
        "max allowed: 9.07 GB)"
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("unable to mmap 4096 bytes from file </torch_1_2>: Cannot allocate memory (12)"),
]
OTHERS = [
    RuntimeError("shape"),
    RuntimeError("failed to reallocate the parameter group"),
    RuntimeError("allocation of labels to classes is not one to one"),
    RuntimeError("failed to allocate a class to 3 labels"),
    RuntimeError("Failed to allocate required number of general-purpose registers"),
    RuntimeError("Expected the tensor to be allocated, got an unallocated one"),
    RuntimeError("INTERNAL ASSERT FAILED at AllocatorConfig.h:115"),
    RuntimeError("the label map is out of memory order"),
    Exception(
        "[ONNXRuntimeError] : 1 : FAIL : Can't allocate memory on the CUDA device using this "
        "package of OnnxRuntime."
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    OSError(28, "No space left on device"),
    ValueError("my bad_allocation"),
]


@pytest.mark.parametrize(
    ("error", "expected"),
    [*((error, True) for error in OUT_OF_MEMORY), *((error, False) for error in OTHERS)],
)
def test_errors_that_mean_out_of_memory(error: Exception, expected: bool) -> None:
    assert processor.lacks_memory(error) == expected


def test_out_of_memory_is_recognized_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    assert processor.lacks_memory(MemoryError())
    assert not processor.lacks_memory(RuntimeError("shape"))


def test_torch_out_of_memory_is_recognized() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert processor.lacks_memory(caught.value)
