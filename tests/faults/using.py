"""E1 to E3, P3, P5, P6: evaluation and prediction that are killed, sharded, or given a bad file."""

import shutil
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction.loading import load
from tests.faults.fault import Attempt, Fault, expect
from tests.faults.processes import Child, command, seenet, torchrun

DATA = ("data.kind=shapes", "data.size=48", "data.count=20")
MANY = 1000
BAD = {"text": b"<html>404</html>", "empty": b"", "cut": None, "gif": b"GIF89a" + bytes(7)}


@cache
def shared() -> Path:
    """A folder for as long as this process lives, with a small network in it."""
    folder = Path(tempfile.mkdtemp(prefix="fault-using-"))
    save_model(
        folder / "tiny.safetensors",
        create_model("baseline", backbone="test_efficientnet", num_classes=SHAPES.num_classes),
        SHAPES,
    )
    return folder


def with_model(attempt: Attempt) -> None:
    shutil.copy(shared() / "tiny.safetensors", attempt.folder)


def evaluation(attempt: Attempt, world: int = 1, *, real: bool = False) -> Child:
    words = ("eval", "tiny.safetensors", *DATA, "--device", "cpu", "--boundary-iou", "--out", "out")
    if world > 1:
        return torchrun(attempt, *words, world=world)
    return command(attempt, "-m", "seenet", *words) if real else seenet(attempt, *words)


def finished(child: Child) -> None:
    expect(child.wait() == 0, f"ended with {child.code}: {child.last_line()}")


@cache
def scored() -> bytes:
    """The result file of an evaluation that nobody disturbed."""
    folder = shared() / "scored"
    folder.mkdir()
    attempt = Attempt(0, np.random.default_rng(0), folder)
    with_model(attempt)
    finished(evaluation(attempt))
    return (folder / "out" / "result.json").read_bytes()


def killed_evaluation(attempt: Attempt) -> None:
    """Killed up to three times, then left alone; a result file is whole whenever it is there."""
    with_model(attempt)
    expected, result = scored(), attempt.folder / "out" / "result.json"
    for _ in range(3):
        child = evaluation(attempt)
        time.sleep(attempt.rng.uniform(0, 4))
        child.kill()
        if result.exists():
            break
        attempt.note(
            "killed while counting"
            if (attempt.folder / "out" / "partial").exists()
            else "killed before it counted"
        )
    if not result.exists():
        finished(evaluation(attempt))
    else:
        attempt.note("had ended")
    expect(result.read_bytes() == expected, "the result is another")
    expect(
        {path.name for path in (attempt.folder / "out").iterdir()}
        <= {"result.json", "confusion.png", "images", "partial"},
        "leftovers",
    )


def sharded(attempt: Attempt) -> None:
    with_model(attempt)
    world = (2, 4)[attempt.number % 2]
    attempt.note(f"{world} processes")
    finished(evaluation(attempt, world))
    expect(
        (attempt.folder / "out" / "result.json").read_bytes() == scored(), "the result is another"
    )


def pictures(folder: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for number in range(count):
        path = folder / f"{number % 7}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(
            rng.integers(0, 256, (rng.integers(42, 60), rng.integers(42, 60), 3), dtype=np.uint8)
        ).save(path)


def prediction(attempt: Attempt, source: Path, out: str) -> Child:
    return seenet(
        attempt,
        "predict",
        "tiny.safetensors",
        str(source),
        "--device",
        "cpu",
        "--out",
        out,
        "--json",
    )


def one_bad_file(attempt: Attempt) -> None:
    with_model(attempt)
    pictures(attempt.folder / "in", MANY, attempt.number)
    bad = sorted((attempt.folder / "in").rglob("*.png"))[int(attempt.rng.integers(MANY))]
    kind = list(BAD)[attempt.number % len(BAD)]
    attempt.note(kind)
    content = BAD[kind]
    bad.write_bytes(bad.read_bytes()[:60] if content is None else content)
    child = prediction(attempt, attempt.folder / "in", "out")
    expect(child.wait() == 3, f"ended with {child.code}: {child.last_line()}")
    expect(
        child.last_line().startswith("seenet: ") and str(bad) in child.last_line(),
        f"said {child.last_line()}",
    )
    made = sum(path.is_file() for path in (attempt.folder / "out" / "masks").rglob("*.png"))
    expect(made == MANY - 1, f"{made} masks of {MANY - 1}")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@cache
def predicted() -> dict[str, bytes]:
    attempt = Attempt(0, np.random.default_rng(0), shared() / "predicted")
    attempt.folder.mkdir()
    with_model(attempt)
    pictures(shared() / "in", 60, 0)
    finished(prediction(attempt, shared() / "in", "out"))
    return tree(attempt.folder / "out")


def killed_prediction(attempt: Attempt) -> None:
    with_model(attempt)
    expected, out = predicted(), attempt.folder / "out"
    for _ in range(1 + attempt.number % 3):
        child = prediction(attempt, shared() / "in", "out")
        time.sleep(attempt.rng.uniform(0, 3))
        child.kill()
        done = len(list((out / "masks").rglob("*.png"))) if out.exists() else 0
        attempt.note(
            "killed amid the pictures"
            if 0 < done < len(expected) // 2
            else "killed before"
            if not done
            else "killed after"
        )
    finished(prediction(attempt, shared() / "in", "out"))
    found = tree(out)
    expect(
        found.keys() == expected.keys(),
        f"other files: {sorted(found.keys() ^ expected.keys())[:3]}",
    )
    expect(found == expected, "files differ")


def any_size(attempt: Attempt) -> None:
    size = (
        (1, 1)
        if not attempt.number
        else tuple(int(side) for side in attempt.rng.integers(1, 90, 2))
    )
    image = attempt.rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = load(shared() / "tiny.safetensors", "cpu").mask(image)
    expect(
        mask.shape == size and mask.max() < SHAPES.num_classes, f"{size}: a mask of {mask.shape}"
    )


def whole_or_none(attempt: Attempt) -> None:
    """E3 where the disk refuses: no result file, or a whole one."""
    with_model(attempt)
    (attempt.folder / "out").mkdir()
    (attempt.folder / "out" / "images").write_text("in the way")
    child = evaluation(attempt)
    expect(child.wait() not in {0, -9}, "nothing stood in the way")
    expect(
        not (attempt.folder / "out" / "result.json").exists(), "a result file is there all the same"
    )
    expect("Traceback" not in child.said(), child.last_line())
    (attempt.folder / "out" / "images").unlink()
    finished(evaluation(attempt))
    expect(
        (attempt.folder / "out" / "result.json").read_bytes() == scored(), "the result is another"
    )


FAULTS = [
    Fault(
        "E1",
        "`seenet eval` killed up to three times: the same bytes, and never an incomplete result file (E3)",
        20,
        killed_evaluation,
    ),
    Fault("E2", "`seenet eval` on 2 and 4 processes: the same bytes as on 1", 2, sharded),
    Fault(
        "E3",
        "a file is where the pictures should go: no result file; then the same command continues",
        1,
        whole_or_none,
    ),
    Fault(
        "P3",
        f"one bad file among {MANY}: the others are done, exit 3, the bad one is named",
        4,
        one_bad_file,
    ),
    Fault(
        "P5",
        "`seenet predict` killed up to three times and run again: the same folder, byte for byte",
        20,
        killed_prediction,
    ),
    Fault(
        "P6", "pictures of 1 x 1 and of every size up to 90 x 90: a mask of that size", 50, any_size
    ),
]
