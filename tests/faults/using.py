"""D1 to D4, E1 to E3, P3, P5, P6: checks of data, evaluation and prediction."""

import json
import shutil
import tempfile
import time
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
from benchmarks.data_check import drawn
from PIL import Image

from seenet.core.settings import DataSettings
from seenet.data.check.inspection import inspect
from seenet.data.check.scan import examine
from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction.loading import load
from tests.core.hostile import BOMBS
from tests.core.test_image_files import FORMS, MEBIBYTES, SECONDS, judged, measured, whole
from tests.data.planting import plant
from tests.faults.fault import Attempt, cut, flipped, tree
from tests.faults.processes import seenet

PAIRS, ERRORS = 5000, 500
RATE = 40
"""Pairs of CamVid's size per second and core, at least."""
MODEL = "tiny.safetensors"
MANY = 1000
BAD = {"text": b"<html>404</html>", "empty": b"", "cut": None, "gif": b"GIF89a" + bytes(7)}

Found = Counter[tuple[str, str]]


@cache
def inspected() -> tuple[list[tuple[str, str]], Found, int]:
    """Return the planted errors, the errors found, the number of other pairs with wrong notes."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        planted, notes = plant(root, PAIRS, ERRORS)
        check = inspect(DataSettings(kind="folder", root=root), 2)
    noted = Counter(note.key for note in check.notes)
    wrong = sum(noted[key] != count for key, count in notes.items())
    files = [(Path(error.file).relative_to(root), error.kind) for error in check.errors]
    return sorted(planted), Counter((path.as_posix(), kind) for path, kind in files), wrong


def planted_error(attempt: Attempt) -> None:
    planted, found, _ = inspected()
    error = planted[attempt.number]
    attempt.note(error[1])
    assert len(planted) == ERRORS and found[error] == 1, f"{error}: found {found[error]} times"


def no_false_alarm(attempt: Attempt) -> None:
    planted, found, wrong = inspected()
    more = sorted(found.keys() - set(planted))
    assert not more and not wrong, f"also found: {more[:3]}; {wrong} pairs have wrong notes"


def data_check(attempt: Attempt) -> None:
    """`seenet data check` on a small folder, with other errors in each try."""
    root, page = attempt.folder / "data", attempt.folder / "page"
    planted, _ = plant(root, 100, 21, seed=attempt.number + 1)
    words = ("data", "check", "folder-lite0", f"data.root={root}", "--out", str(page))
    seenet(attempt, *words).ends(6)
    assert len(json.loads((page / "check.json").read_text())["errors"]) == len(planted)


def rate(attempt: Attempt) -> None:
    """In processor time, since other processes share the core."""
    split = drawn(attempt.folder, 60)
    started = time.process_time()
    for index in range(len(split)):
        examine(split, index)
    pairs = len(split) / (time.process_time() - started)
    assert pairs >= RATE, f"{pairs:.0f} pairs per second and core"


def damaged_image(attempt: Attempt) -> None:
    """A truncated file or changed bytes: an image, or one line that names file and fix."""
    content, rng = whole(FORMS[attempt.number % len(FORMS)]), attempt.rng
    for _ in range(int(rng.integers(5))):
        content = flipped(content, rng)
    content = cut(content, rng) if rng.random() < 0.3 else content
    image = judged(attempt.folder / "damaged", content)
    attempt.note("refused" if image is None else "read")
    assert image is None or (image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3)


def bomb(attempt: Attempt) -> None:
    name = list(BOMBS)[attempt.number]
    for path, error, seconds, mebibytes in measured(attempt.folder, [name]):
        assert error in {"large", "animated", "damaged"}, f"{path} was read"
        assert seconds < SECONDS and mebibytes < MEBIBYTES, f"{seconds:.2f} s, {mebibytes:.0f} MiB"


@cache
def shared() -> Path:
    """Return a folder with a small network and images, which this process keeps."""
    folder = Path(tempfile.mkdtemp(prefix="fault-using-"))
    network = create_model("baseline", backbone="test_efficientnet", num_classes=SHAPES.num_classes)
    save_model(folder / MODEL, network, SHAPES)
    draw(folder / "in", 60)
    return folder


def draw(folder: Path, count: int) -> None:
    """Write images of noise into seven folders."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number % 7}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (*rng.integers(42, 60, 2), 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(path)


def prepared(attempt: Attempt, command: str, source: Path | None = None) -> list[str]:
    """Put the network into the try's folder; return arguments of `seenet`, with output `out`."""
    shutil.copy(shared() / MODEL, attempt.folder)
    more = ["data.kind=shapes", "data.size=48", "data.count=20", "--boundary-iou"]
    if command == "predict":
        more = [str(source or shared() / "in"), "--json"]
    return [command, MODEL, *more, "--device", "cpu", "--out", "out"]


def output(attempt: Attempt) -> dict[str, bytes]:
    """Read what a command wrote, but for the counts with which an evaluation continues."""
    found = tree(attempt.folder / "out")
    return {name: content for name, content in found.items() if not name.startswith("partial/")}


@cache
def undisturbed(command: str) -> dict[str, bytes]:
    """Return the output of a command that runs without a fault."""
    attempt = Attempt(0, shared() / command)
    attempt.folder.mkdir()
    seenet(attempt, *prepared(attempt, command)).ends(0)
    return output(attempt)


def killed(command: str, seconds: float, attempt: Attempt) -> None:
    """E1, P5: up to three kills, then a start that is not disturbed."""
    words, expected = prepared(attempt, command), undisturbed(command)
    for _ in range(1 + attempt.number % 3):
        child = seenet(attempt, *words)
        time.sleep(attempt.rng.uniform(0, seconds))
        child.kill()
        found = output(attempt)
        when = "after" if found.keys() >= expected.keys() else "during" if found else "before"
        attempt.note(f"killed {when} the work")
        if "result.json" in found:
            break
    else:
        seenet(attempt, *words).ends(0)
    assert output(attempt) == expected


def sharded(attempt: Attempt) -> None:
    world = (2, 4)[attempt.number % 2]
    attempt.note(f"{world} processes")
    seenet(attempt, *prepared(attempt, "eval"), ranks=world).ends(0)
    assert output(attempt) == undisturbed("eval")


def whole_or_none(attempt: Attempt) -> None:
    """E3: a file where pictures should go; no result file until it is gone."""
    words, blocked = prepared(attempt, "eval"), attempt.folder / "out" / "images"
    blocked.parent.mkdir()
    blocked.write_text("in the way")
    child = seenet(attempt, *words)
    assert child.ends() > 0 and "Traceback" not in child.said, child.last_line
    assert not (blocked.parent / "result.json").exists()
    blocked.unlink()
    seenet(attempt, *words).ends(0)
    assert output(attempt) == undisturbed("eval")


def one_bad_file(attempt: Attempt) -> None:
    source, kind = attempt.folder / "in", list(BAD)[attempt.number]
    attempt.note(kind)
    draw(source, MANY)
    bad = sorted(source.rglob("*.png"))[int(attempt.rng.integers(MANY))]
    content = BAD[kind]
    bad.write_bytes(bad.read_bytes()[:60] if content is None else content)
    child = seenet(attempt, *prepared(attempt, "predict", source))
    child.ends(3)
    assert child.last_line.startswith("seenet: ") and str(bad) in child.last_line, child.last_line
    assert len(tree(attempt.folder / "out" / "masks", "*.png")) == MANY - 1


def any_size(attempt: Attempt) -> None:
    rng = attempt.rng
    size = tuple(rng.integers(1, 90, 2).tolist()) if attempt.number else (1, 1)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = load(shared() / MODEL, "cpu").mask(image)
    assert mask.shape == size and mask.max() < SHAPES.num_classes
