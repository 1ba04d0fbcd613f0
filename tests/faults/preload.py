"""The preloaded library (failing.c): compiled where there is a C compiler, and put under this process by starting it anew."""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("failing.c")
MARK = "SEENET_FAULTS_LIBRARY"


def start_again() -> None:
    """Replace this process by itself with the library underneath; nothing where there is no compiler, or no Linux."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if MARK in os.environ or sys.platform != "linux" or compiler is None:
        return
    library = Path(tempfile.mkdtemp(prefix="seenet-faults-")) / "failing.so"
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        return
    os.execve(
        sys.executable,
        [sys.executable, *sys.orig_argv[1:]],
        {**os.environ, MARK: str(library), "LD_PRELOAD": str(library)},
    )


def missing() -> str:
    """Why calls cannot be made to fail here."""
    return "" if MARK in os.environ else "no C compiler for the library that makes calls fail"


def arm(below: Path, call: int, error: int, *, stays: bool = False) -> None:
    """Let the `call`-th call (from 0; -1: none) that changes something below the folder fail with this errno; 0: end the process.

    `stays`: all later ones fail too.
    """
    _library().fault_arm(str(below).encode(), call, error, int(stays))


def calls() -> int:
    """How many such calls were made since `arm`."""
    return int(_library().fault_met())


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(os.environ[MARK])
    library.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    library.fault_met.restype = ctypes.c_long
    return library
