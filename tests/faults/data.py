"""D1 to D4: errors planted in a folder, the check's speed, damaged pictures against the decoder, bombs."""

import json
import tempfile
import time
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
from benchmarks.data_check import drawn

from seenet.core.settings import DataSettings
from seenet.data.check.inspection import inspect
from seenet.data.check.scan import examine
from tests.core.hostile import BOMBS
from tests.core.test_image_files import FORMS, MEBIBYTES, SECONDS, judged, measured, whole
from tests.data.planting import plant
from tests.faults.fault import Attempt, Fault, expect
from tests.faults.processes import seenet

PAIRS, ERRORS = 5000, 500
RATE = 40
"""Pairs of CamVid's size a second and core, at least."""

Found = Counter[tuple[str, str]]


@cache
def inspected() -> tuple[list[tuple[str, str]], Found, int]:
    """What was planted, what was found, and at how many of the other pairs the notes are not the right ones."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        planted, notes = plant(root, PAIRS, ERRORS)
        found = inspect(DataSettings(kind="folder", root=root), 2)
        noted = Counter(note.key for note in found.notes)
        wrong = sum(noted[key] != count for key, count in notes.items())
        return (
            sorted(planted),
            Counter(
                (Path(error.file).relative_to(root).as_posix(), error.kind)
                for error in found.errors
            ),
            wrong,
        )


def planted_error(attempt: Attempt) -> None:
    planted, found, _ = inspected()
    expect(len(planted) == ERRORS, f"{len(planted)} were planted")
    what = planted[attempt.number]
    attempt.note(what[1])
    expect(found[what] == 1, f"{what} was found {found[what]} times")


def no_false_alarm(attempt: Attempt) -> None:
    planted, found, wrong = inspected()
    expect(
        not found.keys() - set(planted), f"found besides: {sorted(found.keys() - set(planted))[:3]}"
    )
    expect(not wrong, f"{wrong} pairs have other notes than they deserve")


def the_command(attempt: Attempt) -> None:
    """The exit code and the JSON of `seenet data check`, on a smaller folder of other errors each time."""
    root = attempt.folder / "data"
    planted, _ = plant(root, 100, 21, seed=attempt.number + 1)
    child = seenet(attempt, "data", "check", "folder-lite0", f"data.root={root}", "--out", "page")
    expect(child.wait() == 6, f"ended with {child.code}: {child.last_line()}")
    errors = json.loads((attempt.folder / "page" / "check.json").read_text())["errors"]
    expect(len(errors) == len(planted), f"{len(errors)} of {len(planted)}")


def rate(attempt: Attempt) -> None:
    """By processor time, since other work shares the core."""
    split = drawn(attempt.folder, 60)
    started = time.process_time()
    for index in range(len(split)):
        examine(split, index)
    found = len(split) / (time.process_time() - started)
    expect(found >= RATE, f"{found:.0f} pairs a second and core")


def damaged_picture(attempt: Attempt) -> None:
    """Cut, or some bytes changed: the same picture, a picture, or one line that names file and cure."""
    content, rng = bytearray(whole(FORMS[attempt.number % len(FORMS)])), attempt.rng
    if rng.random() < 0.3:
        del content[int(rng.integers(len(content))) :]
    else:
        for place in rng.integers(0, len(content), int(rng.integers(1, 5))):
            content[place] = int(rng.integers(256))
    found = judged(attempt.folder / "damaged", bytes(content))
    attempt.note("refused" if found is None else "read")
    expect(
        found is None or (found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3),
        "read as something else",
    )


def bomb(attempt: Attempt) -> None:
    name = list(BOMBS)[attempt.number]
    for path, error, seconds, mebibytes in measured(attempt.folder, [name]):
        expect(error in {"large", "animated", "damaged"}, f"{path} was read")
        expect(
            seconds < SECONDS and mebibytes < MEBIBYTES,
            f"{name}: {seconds:.2f} s, {mebibytes:.0f} MiB",
        )


FAULTS = [
    Fault(
        "D1.found",
        f"{ERRORS} errors of 21 kinds planted among {PAIRS} pairs: each is found once",
        ERRORS,
        planted_error,
    ),
    Fault(
        "D1.quiet",
        "no other error is reported there, and each unchanged pair has its notes",
        1,
        no_false_alarm,
    ),
    Fault(
        "D1.command",
        "`seenet data check` on 100 pairs with 21 errors: exit 6, all errors in its JSON",
        10,
        the_command,
    ),
    Fault("D2", f"at least {RATE} pairs of 360 x 480 per second and core", 5, rate),
    Fault(
        "D3",
        "a picture of any format, truncated or with changed bytes: a picture, or one line with its name",
        1000,
        damaged_picture,
    ),
    Fault(
        "D4",
        f"a decompression bomb: refused within {SECONDS:.0f} s and {MEBIBYTES} MiB",
        len(BOMBS),
        bomb,
    ),
]
