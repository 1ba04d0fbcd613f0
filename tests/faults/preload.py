"""The preloaded library (failing.c) that makes the n-th call that changes a file fail."""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("failing.c")
MARK = "SEENET_FAULTS_LIBRARY"


def start_again() -> None:
    """Compile the library and restart this process with it; do nothing if that is impossible."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if MARK in os.environ or sys.platform != "linux" or compiler is None:
        return
    library = str(Path(tempfile.mkdtemp(prefix="seenet-faults-")) / "failing.so")
    build = [compiler, "-shared", "-fPIC", "-O1", "-o", library, str(SOURCE), "-ldl"]
    if subprocess.run(build, capture_output=True, check=False).returncode == 0:
        python = [sys.executable, *sys.orig_argv[1:]]
        os.execve(python[0], python, {**os.environ, MARK: library, "LD_PRELOAD": library})


def missing() -> str:
    """Return why calls cannot be made to fail on this machine."""
    return "" if MARK in os.environ else "no C compiler for the library that makes calls fail"


@contextmanager
def armed(
    below: Path, call: int = -1, error: int = 0, *, stays: bool = False
) -> Iterator[ctypes.CDLL]:
    """Let a call that changes something below the folder fail with `error`; 0: SIGKILL.

    `call` counts from 0; -1: none fails, `fault_met` counts them. `stays`: later calls fail too.
    """
    library = _library()
    library.fault_arm(str(below).encode(), call, error, int(stays))
    try:
        yield library
    finally:
        library.fault_arm(b"/nowhere", -1, 0, 0)


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(os.environ[MARK])
    library.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    library.fault_met.restype = ctypes.c_long
    return library
