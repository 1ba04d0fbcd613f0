"""Metrics of a run: JSON lines, and TensorBoard if it is installed."""

import json
import os
from pathlib import Path
from typing import Any

import torch

from seenet.training.run import METRICS, writing


class Metrics:
    """Writer of `metrics.jsonl`, one JSON object per line, and of TensorBoard's files."""

    def __init__(self, run: Path, *, keep_bytes: int = 0) -> None:
        path = run / METRICS
        self.run = run
        self._file = path.open("r+b" if path.exists() else "w+b")
        # A resumed run repeats the steps after its checkpoint.
        self._file.truncate(keep_bytes)
        self._file.seek(0, os.SEEK_END)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._board = None
        else:
            self._board = SummaryWriter(str(run / "tensorboard"))

    def write(self, step: int, **values: Any) -> None:
        """Write the values of a step: numbers, or dicts of numbers."""
        with writing(self.run):
            self._file.write(json.dumps({"step": step, **values}).encode() + b"\n")
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                for key, number in value.items() if isinstance(value, dict) else [(None, value)]:
                    if isinstance(number, int | float):
                        self._board.add_scalar(f"{name}/{key}" if key else name, number, step)

    def bytes(self) -> int:
        """Return the current length of the file, for a checkpoint."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl; skip a last line that is still being written."""
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            entries.append(entry)
    return entries


def memory_mib(device: torch.device) -> float:
    """Return memory in MiB: the peak of the device on CUDA, else this process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
