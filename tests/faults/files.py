"""C5 to C7, X5, Z: damaged checkpoints, pickled files, weights of another shape, hostile models."""

import builtins
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from seenet.core.errors import DataError
from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction.loading import load
from tests.faults.fault import Attempt, Fault, expect
from tests.faults.processes import seenet, wait_until
from tests.faults.runs import STEPS, copied, reference, same, steps_made, trained, words
from tests.prediction.bundles import hostile as onnx
from tests.prediction.bundles.red import write_red


@cache
def unfinished() -> Path:
    """A run with three checkpoints, killed."""
    attempt = Attempt(0, np.random.default_rng(0), reference().parent / "unfinished")
    attempt.folder.mkdir()
    run = attempt.folder / "run"
    child = seenet(attempt, *words(run, "training.keep=3"))
    wait_until(lambda: steps_made(run) >= STEPS - 3 or child.poll() is not None, "steps are made")
    child.kill()
    return run


def _flip(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    content[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path, np.random.Generator], object]] = {
    "flipped": _flip,
    "cut": lambda path, rng: os.truncate(path, int(rng.integers(path.stat().st_size))),
    "gone": lambda path, _: path.unlink(),
    "more": lambda path, _: (path.parent / "more.safetensors").write_bytes(b"more"),
}


def damaged_checkpoint(attempt: Attempt) -> None:
    run = copied(attempt, unfinished())
    newest = sorted((run / "checkpoints").glob("step-*"))[-1 - attempt.number % 2 :]
    for folder in newest:
        kind = list(DAMAGE)[int(attempt.rng.integers(len(DAMAGE)))]
        attempt.note(kind)
        DAMAGE[kind](sorted(folder.iterdir())[int(attempt.rng.integers(5))], attempt.rng)
    child = trained(attempt, run, "training.keep=3", resume=True)
    said = [line for line in child.said().splitlines() if line.endswith("trying the one before")]
    expect(len(said) == len(newest), f"says {len(said)} times of {len(newest)} that one is damaged")
    same(run, reference())


class Payload:
    """Pickled as a call; what it does when it is made again, nobody has asked for."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def payloads(mark: Path) -> dict[str, Any]:
    code = f"open({str(mark)!r}, 'w')"
    return {
        "os.system": Payload(os.system, f"touch {mark}"),
        "subprocess": Payload(subprocess.call, ["touch", str(mark)]),
        "eval": Payload(builtins.eval, code),
        "exec": Payload(builtins.exec, code),
        "open": Payload(builtins.open, str(mark), "w"),
        "within a state": {"weight": torch.ones(2), "bias": Payload(builtins.exec, code)},
        "within a tuple": (torch.ones(1), Payload(os.system, f"touch {mark}")),
        "a key": {Payload(builtins.exec, code): torch.ones(1)},
    }


def pickled(attempt: Attempt) -> None:
    mark, source = attempt.folder / "mark", attempt.folder / "weights.pth"
    kind, payload = list(payloads(mark).items())[attempt.number]
    attempt.note(kind)
    torch.save(payload, source)
    child = seenet(attempt, "import", str(source))
    expect(child.wait() == 4, f"ended with {child.code}: {child.last_line()}")
    expect(not mark.exists(), "the file ran code")
    expect(not source.with_suffix(".safetensors").exists(), "something was written")
    expect(
        "\n" not in child.said().strip() and str(source) in child.said(),
        f"said {child.said()[:200]}",
    )


def pickled_plainly(attempt: Attempt) -> None:
    mark, source = attempt.folder / "mark", attempt.folder / "weights.pth"
    torch.save(list(payloads(mark).values())[attempt.number], source)
    try:
        torch.load(source, weights_only=False)
    except Exception as error:
        attempt.note(type(error).__name__)
    expect(not mark.exists(), "the file ran code")


OTHERS = {
    "classes": {"num_classes": 9},
    "width": {"width": 16},
    "variant": {"variant": "pfp"},
    "backbone": {"backbone": "test_resnet"},
}


def other_network(attempt: Attempt) -> None:
    """C7: what fits is loaded, the rest is listed by name."""
    name, change = list(OTHERS.items())[attempt.number]
    attempt.note(name)
    options = {
        "variant": "seenet",
        "backbone": "test_efficientnet",
        "width": 8,
        "p_out": 16,
        "num_classes": SHAPES.num_classes,
        **change,
    }
    classes = int(options["num_classes"])
    labels = (
        SHAPES
        if classes == SHAPES.num_classes
        else type(SHAPES)("more", tuple(f"c{n}" for n in range(9)), ((0, 0, 0),) * 9)
    )
    save_model(attempt.folder / "start.safetensors", create_model(**options), labels)
    child = trained(
        attempt,
        attempt.folder / "run",
        "training.steps=2",
        f"training.start_from={attempt.folder / 'start.safetensors'}",
    )
    said = child.said()
    expect("tensors loaded" in said and "not loaded: " in said, "what was left out is not listed")


EDITS = (
    onnx.external, onnx.external_attribute, onnx.huge, onnx.negative, onnx.huge_constant, onnx.unknown_operator, onnx.unknown_domain,
    onnx.hidden_in_a_branch, onnx.nested, onnx.unknown_type, onnx.grows, onnx.wrong_shape,
)  # fmt: skip


def hostile_onnx(attempt: Attempt) -> None:
    edit = EDITS[attempt.number]
    attempt.note(edit.__name__)
    path = write_red(attempt.folder / "hostile.onnx", edit=edit)
    try:
        load(path)
    except DataError as error:
        expect("\n" not in str(error) and str(error).startswith(str(path)), f"said {error}")
    else:
        raise AssertionError("it was loaded")


def damaged_onnx(attempt: Attempt) -> None:
    """Cut or flipped: refused in one line, or its card is whole, before a runtime sees it."""
    path = write_red(attempt.folder / "damaged.onnx")
    if attempt.number % 2:
        _flip(path, attempt.rng)
        onnx.metadata_or_refusal(path)
    else:
        os.truncate(path, int(attempt.rng.integers(path.stat().st_size)))
        expect("seenet" not in onnx.metadata_or_refusal(path), "half a file has a card")


def hostile_model(attempt: Attempt) -> None:
    """A .safetensors with damaged or made-up metadata: one line, exit 4, no file elsewhere."""
    path, rng = attempt.folder / "model.safetensors", attempt.rng
    save_model(path, create_model("baseline", backbone="test_efficientnet", num_classes=6), SHAPES)
    content = bytearray(path.read_bytes())
    head = 8 + int.from_bytes(content[:8], "little")
    kind = ("header flipped", "cut", "no metadata", "length")[attempt.number % 4]
    attempt.note(kind)
    if kind == "header flipped":
        content[int(rng.integers(8, head))] ^= int(rng.integers(1, 256))
    elif kind == "cut":
        del content[int(rng.integers(len(content))) :]
    elif kind == "length":
        content[:8] = int(rng.integers(0, 2**62)).to_bytes(8, "little")
    path.write_bytes(content)
    if kind == "no metadata":
        save_file({"weight": torch.ones(3)}, path, {"format": "../../pt"})
    Image.new("RGB", (48, 48)).save(attempt.folder / "picture.png")
    child = seenet(attempt, "predict", str(path), "picture.png", "--device", "cpu")
    expect(child.wait() in {0, 4}, f"ended with {child.code}: {child.last_line()}")
    attempt.note("refused" if child.code else "harmless")
    expect(
        {entry.name for entry in attempt.folder.iterdir()}
        <= {path.name, "picture.png", "predictions", "log-0"},
        "files elsewhere",
    )
    if child.code:
        expect(
            "\n" not in child.said().strip() and str(path) in child.said(),
            f"said {child.said()[:200]}",
        )


FAULTS = [
    Fault("C5", "the newest one or two checkpoints damaged: --resume reports it and ends as an uninterrupted run", 20, damaged_checkpoint),
    Fault("C6", "a pickled file that runs code, given to `seenet import`: nothing runs, exit 4", len(payloads(Path())), pickled),
    Fault("C7", "`training.start_from` with another network: what fits is loaded, the rest is listed", len(OTHERS), other_network),
    Fault("X5.hostile", "hostile ONNX files: refused in one line, without a crash", len(EDITS), hostile_onnx),
    Fault("X5.damaged", "an ONNX bundle truncated or with one byte changed: refused in one line, or intact metadata", 1000, damaged_onnx),
    Fault("Z.model", "a .safetensors model with a damaged header: exit 4 in one line, or no effect", 100, hostile_model),
    Fault("B.C6", "the same pickled files, with `torch.load(weights_only=False)`", len(payloads(Path())), pickled_plainly, must_fail=True),
]  # fmt: skip
