from pathlib import Path

import pytest

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
def test_what_linux_says_of_it(text: str | None, bf16: bool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(
    ("error", "short"),
    [(MemoryError(), True), (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True), (RuntimeError("shape"), False)],
)
def test_what_says_that_memory_is_short(error: Exception, short: bool) -> None:
    assert processor.lacks_memory(error) == short
