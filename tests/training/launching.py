"""torchrun with processes of this machine, gloo between them, and what became of them all."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]


def torchrun(processes: int, *options: str) -> list[str]:
    """The start of a command line; each call of it has a port of its own."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(processes),
        *options,
    ]  # fmt: skip


def start(command: list[str]) -> subprocess.Popen[str]:
    """In a session of its own, from the repository's folder, one thread a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str], seconds: float) -> str:
    """Wait for it; what it wrote on stderr. Whatever outlives the wait is killed."""
    try:
        return process.communicate(timeout=seconds)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
