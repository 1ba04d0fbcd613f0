"""C1 to C4: kills during a save, full and failing disks, flipped bytes; the known-bad baseline."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from seenet.core.errors import DataError
from seenet.training import checkpoint
from tests.faults.fault import Attempt, flipped, tree
from tests.faults.preload import arm
from tests.faults.processes import Child

MOUNT = "mount -t tmpfs -o size=8m none"


class Plain:
    """Known-bad baseline: what many training scripts do, with the interface of `checkpoint`."""

    @staticmethod
    def save(root: Path, step: int, content: checkpoint.Checkpoint, keep: int) -> None:
        root.mkdir(parents=True, exist_ok=True)
        torch.save(content, root / "last.pt")

    @staticmethod
    def newest(root: Path) -> checkpoint.Checkpoint | None:
        path = root / "last.pt"
        return torch.load(path, weights_only=False) if path.exists() else None


def save(store: Any, root: Path, *steps: int) -> None:
    """Save about a mebibyte of numbers that all equal the step."""
    for step in steps:
        parts = {f"{part}.weight": torch.full((64, 640), float(step)) for part in range(3)}
        content = checkpoint.Checkpoint({"model": parts, "optimizer": parts}, {"step": step})
        store.save(root, step, content, keep=2)


def newest_step(store: Any, root: Path) -> int:
    """Return the step of the newest checkpoint, whose numbers must all be of that step."""
    found = store.newest(root)
    numbers = {
        number
        for parts in found.tensors.values()
        for tensor in parts.values()
        for number in tensor.unique().tolist()
    }
    assert numbers == {found.state["step"]}
    return int(found.state["step"])


def continues(store: Any, root: Path, saved: int) -> None:
    """Require the last saved step, intact, and that the next one can be saved."""
    step = newest_step(store, root)
    assert step in {saved, saved + 1}, f"step {saved} was saved, the newest is {step}"
    save(store, root, step + 1)
    assert newest_step(store, root) == step + 1
    assert not list(root.glob(".*")), "a partial checkpoint is never removed"


def temporary(attempt: Attempt) -> dict[str, str]:
    """Return an environment with TMPDIR on another file system, if there is one."""
    other = os.path.ismount("/dev/shm")
    attempt.note(f"TMPDIR on {'another' if other else 'the same'} file system")
    return {"TMPDIR": "/dev/shm"} if other else {}


def killed_at_a_moment(store: Any, attempt: Attempt) -> None:
    root, enough = attempt.folder / "checkpoints", attempt.number % 4

    def keep_saving() -> None:
        for step in range(1, 10_000):
            save(store, root, step)
            print(step, flush=True)

    child = Child(attempt, keep_saving, temporary(attempt))
    child.until(lambda: len(child.said.split()) > enough, "it saves", every=0.0005)
    time.sleep(attempt.rng.uniform(0, 0.05))
    assert child.kill() != 0
    partial = list(root.glob(".*"))
    attempt.note("half a checkpoint was there" if partial else "between two checkpoints")
    continues(store, root, int(child.last_line))


@cache
def calls_of_a_save(store: Any) -> int:
    """Count the calls that change a file, in a save that also removes an old checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "checkpoints"
        save(store, root, 1, 2)
        library = arm(root)
        save(store, root, 3)
        return library.fault_met()


def refused_or_saved(attempt: Attempt, child: Child, reason: str) -> None:
    """Require a DataError of one line; a save whose cleanup alone failed is a success."""
    attempt.note("saved all the same" if child.ends(0, 1) == 0 else "refused")
    if child.exitcode:
        said = child.last_line
        assert all(word in said for word in ("DataError: ", reason, "make room")), said


def call_fails(store: Any, error: int, attempt: Attempt) -> None:
    """The n-th call fails (0: kills) in a save after two good ones; later also all after it."""
    root = attempt.folder / "checkpoints"
    turn, call = divmod(attempt.number, calls_of_a_save(store))
    save(store, root, 1, 2)
    before = tree(root, "*2/*")

    def work() -> None:
        arm(root, call, error, stays=bool(error and turn % 2))
        save(store, root, 3)

    child = Child(attempt, work, temporary(attempt))
    child.ends()
    assert before.items() <= tree(root).items(), "the last good checkpoint has changed"
    continues(store, root, 2)
    if error:
        refused_or_saved(attempt, child, os.strerror(error))
    else:
        child.ends(-signal.SIGKILL)


@cache
def cannot_mount() -> str:
    # In a mount namespace that ends with the command.
    command = ["sh", "-c", f"unshare -m {MOUNT} /mnt"]
    done = subprocess.run(command, capture_output=True, check=False)
    return "mounting a tmpfs is not permitted" if done.returncode else ""


def full_disk(attempt: Attempt) -> None:
    disk, root = attempt.folder / "disk", attempt.folder / "disk" / "checkpoints"
    disk.mkdir()
    subprocess.run([*MOUNT.split(), str(disk)], check=True)
    try:
        save(checkpoint, root, 1)
        before = tree(root)
        left = int(attempt.rng.integers(sum(map(len, before.values()))))
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - left))
        child = Child(attempt, lambda: save(checkpoint, root, 2))
        assert child.ends() != 0, "there was room"
        assert newest_step(checkpoint, root) == 1
        assert tree(root) == before
        refused_or_saved(attempt, child, "No space left")
        (disk / "filler").unlink()
        continues(checkpoint, root, 1)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def flipped_byte(store: Any, attempt: Attempt) -> None:
    """A byte of any file; each file as often, whatever its size."""
    save(store, attempt.folder, 7)
    files = sorted(path for path in attempt.folder.rglob("*") if path.is_file())
    path = files[attempt.number % len(files)]
    attempt.note(path.name)
    path.write_bytes(flipped(path.read_bytes(), attempt.rng))
    with suppress(DataError):
        store.newest(attempt.folder)
        raise AssertionError(f"{path.name}: a byte changed unnoticed")


def only_plain_files(attempt: Attempt) -> None:
    save(checkpoint, attempt.folder, 1)
    assert {Path(name).suffix for name in tree(attempt.folder)} == {".safetensors", ".json"}
