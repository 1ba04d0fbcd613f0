"""Commands in processes of their own, also by torchrun with gloo between the ranks."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]


def torchrun(processes: int, *options: str) -> list[str]:
    """Return the beginning of a command line; each call of it gets a port of its own."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
        "--nproc-per-node", str(processes), *options,
    ]  # fmt: skip


def start(command: list[str]) -> subprocess.Popen[str]:
    """Start a command in a session of its own, from the repository's root, with one thread."""
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
    """Wait for a process and return its stderr; kill what outlives the wait."""
    try:
        return process.communicate(timeout=seconds)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def run(*command: str, seconds: float = 500) -> tuple[int, str]:
    """Run a command; return its exit code and stderr."""
    process = start([*command])
    said = finish(process, seconds)
    return process.returncode, said
