"""C2 to C4: kills while saving, full and failing disks, flipped bytes; and that a plain `torch.save` loop does not survive them."""

import errno
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from seenet.core.errors import DataError
from seenet.training import checkpoint
from tests.faults import preload
from tests.faults.fault import Attempt, Fault, expect
from tests.faults.processes import Child, forked, wait_until
from tests.faults.stores import OURS, PLAIN, Store, check, content

ELSEWHERE = ("/dev/shm", "/run/user")


def other_file_system(folder: Path) -> str:
    """A folder for TMPDIR on another file system, where there is one."""
    here = folder.stat().st_dev
    return next(
        (
            name
            for name in ELSEWHERE
            if Path(name).is_dir() and os.access(name, os.W_OK) and Path(name).stat().st_dev != here
        ),
        "",
    )


def beside(attempt: Attempt) -> dict[str, str]:
    other = other_file_system(attempt.folder)
    attempt.note("TMPDIR on another file system" if other else "TMPDIR on the same file system")
    tempfile.tempdir = None
    return {"TMPDIR": other} if other else {}


def killed_at_a_moment(store: Store) -> Callable[[Attempt], None]:
    def run(attempt: Attempt) -> None:
        root, told = attempt.folder / "checkpoints", attempt.folder / "told"
        told.touch()

        def keep_saving() -> None:
            with told.open("a") as file:
                for step in range(1, 10_000):
                    store.save(root, step)
                    file.write(f"{step}\n")
                    file.flush()

        child = forked(attempt, keep_saving, beside(attempt))
        wait_until(
            lambda: told.read_text().count("\n") > attempt.number % 4 or child.poll() is not None,
            "it has saved",
            every=0.0005,
        )
        time.sleep(attempt.rng.uniform(0, 0.05))
        child.kill()
        expect(child.code == -9, f"ended by itself with {child.code}: {child.last_line()}")
        attempt.note(
            "half a checkpoint was there" if list(root.glob(".*")) else "between two checkpoints"
        )
        goes_on(store, root, int(told.read_text().rstrip("\n").rpartition("\n")[2]))

    return run


def goes_on(store: Store, root: Path, told: int) -> None:
    """What was said to be saved is there, whole; and the next one can be saved, over whatever the kill left."""
    found = store.newest(root)
    expect(found is not None, "nothing is there")
    assert found is not None
    step = check(found)
    expect(step in {told, told + 1}, f"step {told} was said to be saved, the newest is {step}")
    store.save(root, step + 1)
    again = store.newest(root)
    expect(again is not None and check(again) == step + 1, "cannot go on")
    expect(not list(root.glob(".*")), "half a checkpoint is never removed")


@cache
def calls_of_a_save(store: Store) -> int:
    """That change a file, in a save that also removes an old checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        for step in (1, 2):
            store.save(Path(folder) / "c", step)
        preload.arm(Path(folder), -1, 0)
        store.save(Path(folder) / "c", 3)
        count = preload.calls()
        preload.arm(Path("/nowhere"), -1, 0)
        return count


def saved_under(
    attempt: Attempt, store: Store, error: int, *, stays: bool = False
) -> tuple[Path, Child, dict[Path, bytes]]:
    """Two good checkpoints, and a third whose n-th call fails; all bytes of the second."""
    root = attempt.folder / "checkpoints"
    for step in (1, 2):
        store.save(root, step)
    before = {path: path.read_bytes() for path in sorted(root.rglob("*2/*"))}
    call = attempt.number % calls_of_a_save(store)

    def work() -> None:
        preload.arm(root, call, error, stays=stays)
        try:
            store.save(root, 3)
        except DataError as refused:
            print(refused)
            raise SystemExit(4) from None
        finally:
            preload.arm(Path("/nowhere"), -1, 0)

    child = forked(attempt, work, beside(attempt))
    child.wait()
    return root, child, before


def killed_at_a_call(attempt: Attempt) -> None:
    root, child, before = saved_under(attempt, OURS, 0)
    expect(child.code == -9, f"ended with {child.code}: {child.last_line()}")
    expect(
        all(path.read_bytes() == data for path, data in before.items()),
        "the last good one has changed",
    )
    goes_on(OURS, root, 2)


def disk_fails(store: Store, error: int) -> Callable[[Attempt], None]:
    """The n-th call fails, and after each n was tried, the n-th and all later ones."""

    def run(attempt: Attempt) -> None:
        root, child, before = saved_under(
            attempt, store, error, stays=attempt.number // calls_of_a_save(store) % 2 == 1
        )
        expect(
            all(path.read_bytes() == data for path, data in before.items()),
            "the last good one has changed",
        )
        goes_on(store, root, 2)
        refused_in_one_line(child, os.strerror(error), attempt)

    return run


def refused_in_one_line(child: Child, reason: str, attempt: Attempt) -> None:
    """Or saved all the same, where only the removal of an old one failed."""
    said = child.said().strip()
    attempt.note("saved all the same" if child.code == 0 else "refused")
    if child.code:
        expect(child.code == 4, f"ended with {child.code}: {child.last_line()}")
        expect("\n" not in said and reason in said and "make room" in said, f"said: {said}")


@cache
def cannot_mount() -> str:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder],
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
    return "mounting a tmpfs is not permitted" if done.returncode else ""


def full_disk(attempt: Attempt) -> None:
    disk = attempt.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)], check=True)
    try:
        root = disk / "checkpoints"
        OURS.save(root, 1)
        before = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        size = sum(map(len, before.values()))
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "filler").write_bytes(bytes(free - int(attempt.rng.integers(0, size))))

        def work() -> None:
            try:
                OURS.save(root, 2)
            except DataError as refused:
                print(refused)
                raise SystemExit(4) from None

        child = forked(attempt, work)
        expect(child.wait() != 0, "there was room")
        found = OURS.newest(root)
        expect(found is not None and check(found) == 1, "the last good one is lost")
        expect(
            {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
            == before,
            "other files are there",
        )
        refused_in_one_line(child, "No space left", attempt)
        (disk / "filler").unlink()
        OURS.save(root, 2)
        again = OURS.newest(root)
        expect(again is not None and check(again) == 2, "cannot go on when there is room")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@cache
def one_of(store: Store) -> Path:
    """A folder with one checkpoint, for as long as this process lives."""
    root = Path(tempfile.mkdtemp(prefix="fault-flips-"))
    store.save(root, 7)
    return root


def flipped_byte(store: Store) -> Callable[[Attempt], None]:
    """Any byte of any file: each file as often, however large."""

    def run(attempt: Attempt) -> None:
        files = sorted(path for path in one_of(store).rglob("*") if path.is_file())
        path = files[attempt.number % len(files)]
        whole = path.read_bytes()
        place = int(attempt.rng.integers(len(whole)))
        attempt.note(path.name)
        path.write_bytes(
            whole[:place]
            + bytes([whole[place] ^ int(attempt.rng.integers(1, 256))])
            + whole[place + 1 :]
        )
        try:
            store.newest(one_of(store))
        except Exception as error:
            expect(
                store is PLAIN or isinstance(error, DataError),
                f"{type(error).__name__} instead of a refusal: {error}",
            )
        else:
            raise AssertionError(
                f"{path.name}: byte {place} of {len(whole)} was changed and nobody noticed"
            )
        finally:
            path.write_bytes(whole)

    return run


def only_plain_files(attempt: Attempt) -> None:
    """C1: safetensors and JSON, whatever is saved."""
    folder = checkpoint.save(attempt.folder, 1, checkpoint.Checkpoint(content(1), {"step": 1}), 1)
    expect(
        {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"},
        "other files than safetensors and JSON",
    )


FAULTS = [
    Fault("C1", "a checkpoint contains only safetensors and JSON", 1, only_plain_files),
    Fault(
        "C2.moment",
        "`kill -9` at a random moment of saving, TMPDIR on another file system",
        200,
        killed_at_a_moment(OURS),
    ),
    Fault(
        "C2.call",
        "`kill -9` in the n-th call that changes a file, for every n of a save",
        200,
        killed_at_a_call,
        preload.missing,
    ),
    Fault(
        "C3.tmpfs", "a tmpfs that fills up while a checkpoint is saved", 50, full_disk, cannot_mount
    ),
    Fault(
        "C3.enospc",
        "the n-th call of a save reports a full disk",
        200,
        disk_fails(OURS, errno.ENOSPC),
        preload.missing,
    ),
    Fault(
        "C3.eio",
        "the n-th call of a save fails with EIO",
        200,
        disk_fails(OURS, errno.EIO),
        preload.missing,
    ),
    Fault("C4", "one byte of a checkpoint changed", 1000, flipped_byte(OURS)),
    Fault(
        "B.C2.moment",
        "the same kills, with plain `torch.save`",
        50,
        killed_at_a_moment(PLAIN),
        must_fail=True,
    ),
    Fault(
        "B.C3.eio",
        "the same EIO, with plain `torch.save`",
        20,
        disk_fails(PLAIN, errno.EIO),
        preload.missing,
        must_fail=True,
    ),
    Fault(
        "B.C4",
        "the same flipped bytes, with `torch.load(weights_only=False)`",
        100,
        flipped_byte(PLAIN),
        must_fail=True,
    ),
]
