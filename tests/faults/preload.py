"""The preloaded library (failing.c) that makes the n-th call that changes a file fail."""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAME = "seenet-failing.so"


def start_again() -> None:
    """Compile the library and restart this process with it; do nothing if that is impossible."""
    preloaded = NAME in os.environ.get("LD_PRELOAD", "")
    if preloaded or sys.platform != "linux" or not shutil.which("cc"):
        return
    library, source = Path(tempfile.mkdtemp()) / NAME, Path(__file__).with_name("failing.c")
    build = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    if subprocess.run(build, capture_output=True, check=False).returncode == 0:
        python = [sys.executable, *sys.orig_argv[1:]]
        os.execve(python[0], python, {**os.environ, "LD_PRELOAD": str(library)})


def missing() -> str:
    """Return why calls cannot be made to fail on this machine."""
    preloaded = hasattr(ctypes.CDLL(None), "fault_arm")
    return "" if preloaded else "no C compiler for the library that makes calls fail"


def arm(below: Path, call: int = -1, error: int = 0, *, stays: bool = False) -> ctypes.CDLL:
    """Let a call that changes something below the folder fail with `error`; 0: SIGKILL.

    `call` counts from 0; -1: none fails, `fault_met` counts them. `stays`: later calls fail too.
    """
    library = ctypes.CDLL(None)
    library.fault_arm(str(below).encode(), call, error, int(stays))
    return library
