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
        (None, False, ""),
    ],
)
def test_what_linux_says_of_it(
    text: str | None, bf16: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, **_: str) -> str:
        assert str(path) == "/proc/cpuinfo"
        if text is None:
            raise FileNotFoundError
        return text

    processor.fields.cache_clear()
    monkeypatch.setattr(Path, "read_text", read)
    try:
        assert processor.has_bf16() is bf16
        assert processor.name().endswith(name)
        assert processor.name()
    finally:
        monkeypatch.undo()
        processor.fields.cache_clear()


def test_threads_are_at_most_those_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    every = processor.threads()
    assert every >= 1
    for text, expected in (("1", 1), ("1000", every), ("0", every), ("many", every)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert processor.threads() == expected


def test_memory_that_is_free() -> None:
    found = processor.available_memory()
    assert found is None or 2**20 < found < 2**50


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processor, "threads", lambda: 2)
    monkeypatch.setattr(processor.os, "getloadavg", lambda: (1.9, 0, 0))
    assert processor.crowded() == ""
    monkeypatch.setattr(processor.os, "getloadavg", lambda: (2.4, 0, 0))
    assert processor.crowded().startswith("2.4 programs compute here already, on 2 processors")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert processor.crowded() == ""


SHORT = [
    MemoryError(),
    torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of"
    ),
    OSError(12, "Cannot allocate memory"),
    # As the libraries have said it, with too little memory, in the versions of requirements/.
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes. "
        "Error code 12 (Cannot allocate memory)"
    ),
    Exception(
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. Name:'z_nchwc' Status Message: "
        "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, "
        "onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 2304000000\n"
    ),
    Exception(
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. : std::bad_alloc"
    ),
    RuntimeError(
        "Exception from src/inference/src/cpp/infer_request.cpp:224:\nCheck 'ptr' failed at src/plugins/intel_cpu/src/cpu_memory.cpp:257:\n"
        "Failed to allocate 108000000 bytes of memory\n\n"
    ),
    # As their sources have it.
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."
    ),
    RuntimeError("std::bad_alloc"),
    RuntimeError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"
    ),
    RuntimeError(
        "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB)"
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
        "[ONNXRuntimeError] : 1 : FAIL : Can't allocate memory on the CUDA device using this package of OnnxRuntime."
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    OSError(28, "No space left on device"),
    ValueError("my bad_allocation"),
]


@pytest.mark.parametrize(
    ("error", "short"), [*((error, True) for error in SHORT), *((error, False) for error in OTHERS)]
)
def test_what_says_that_memory_is_short(error: Exception, short: bool) -> None:
    assert processor.lacks_memory(error) == short


def test_torch_is_not_needed_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    assert processor.lacks_memory(MemoryError())
    assert not processor.lacks_memory(RuntimeError("shape"))


def test_torch_says_it_in_these_words() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert processor.lacks_memory(caught.value)
