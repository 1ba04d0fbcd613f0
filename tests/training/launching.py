"""Commands in processes of their own, also by torchrun with gloo between the ranks."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


def torchrun(processes: int, *options: str) -> list[str]:
    """Return the beginning of a command line; each call of it gets a port of its own."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
        "--nproc-per-node", str(processes), *options,
    ]  # fmt: skip


def run(*command: str, seconds: float = 500) -> tuple[int, str]:
    """Run a command from the repository's root, with one thread; return exit code and stderr."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        text=True,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        said = process.communicate(timeout=seconds)[1]
    finally:
        # What outlives the wait, or the command.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said
