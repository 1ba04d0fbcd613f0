"""C5 to C7, X5, Z: damaged checkpoints, pickled files, other networks, hostile models."""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from seenet.core.errors import DataError
from seenet.core.labels import LabelSet
from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction.loading import load
from tests.faults.fault import Attempt, cut, flipped
from tests.faults.processes import seenet
from tests.faults.runs import reference, same, train
from tests.prediction.bundles import hostile as onnx
from tests.prediction.bundles.red import write_red

DAMAGE: dict[str, Callable[[Path, np.random.Generator], object]] = {
    "flipped": lambda path, rng: path.write_bytes(flipped(path.read_bytes(), rng)),
    "cut": lambda path, rng: path.write_bytes(cut(path.read_bytes(), rng)),
    "gone": lambda path, _: path.unlink(),
    "more": lambda path, _: (path.parent / "more.safetensors").write_bytes(b"more"),
}


def damaged_checkpoint(attempt: Attempt) -> None:
    copytree(reference(), attempt.run)
    # As if it was killed in its last validation.
    for name in ("model.safetensors", "model-last.safetensors", "val.json"):
        (attempt.run / name).unlink()
    newest = sorted(attempt.run.glob("checkpoints/step-*"))[-1 - attempt.number % 2 :]
    for folder in newest:
        kind = list(DAMAGE)[int(attempt.rng.integers(len(DAMAGE)))]
        attempt.note(kind)
        DAMAGE[kind](sorted(folder.iterdir())[int(attempt.rng.integers(5))], attempt.rng)
    child = train(attempt, resume=True)
    child.ends(0)
    said = child.said.count("trying the one before")
    assert said == len(newest), f"{said} of {len(newest)} damaged checkpoints are reported"
    same(attempt.run)


class Payload:
    """Object that is pickled as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def payloads(mark: Path) -> dict[str, Any]:
    """Return objects that create the file `mark` when they are unpickled."""
    code = f"open({str(mark)!r}, 'w')"
    return {
        "os.system": Payload(os.system, f"touch {mark}"),
        "subprocess": Payload(subprocess.call, ["touch", str(mark)]),
        "eval": Payload(eval, code),
        "exec": Payload(exec, code),
        "open": Payload(open, str(mark), "w"),
        "within a state": {"weight": torch.ones(2), "bias": Payload(exec, code)},
        "within a tuple": (torch.ones(1), Payload(os.system, f"touch {mark}")),
        "a key": {Payload(exec, code): torch.ones(1)},
    }


def pickled(attempt: Attempt) -> tuple[Path, Path]:
    """Write a payload; return its path and the file that it would create."""
    mark, source = attempt.folder / "mark", attempt.folder / "weights.pth"
    kind, payload = list(payloads(mark).items())[attempt.number]
    attempt.note(kind)
    torch.save(payload, source)
    return source, mark


def imported(attempt: Attempt) -> None:
    source, mark = pickled(attempt)
    seenet(attempt, "import", str(source)).refuses(str(source))
    assert not mark.exists(), "the file ran code"
    assert not source.with_suffix(".safetensors").exists()


def loaded_plainly(attempt: Attempt) -> None:
    source, mark = pickled(attempt)
    with suppress(Exception):
        torch.load(source, weights_only=False)
    assert not mark.exists(), "the file ran code"


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
    options = {"variant": "seenet", "backbone": "test_efficientnet", "width": 8, "p_out": 16}
    options |= {"num_classes": SHAPES.num_classes} | change
    more = LabelSet("more", tuple(f"c{k}" for k in range(9)), ((0, 0, 0),) * 9)
    start, labels = attempt.folder / "start.safetensors", more if name == "classes" else SHAPES
    save_model(start, create_model(**options), labels)
    child = train(attempt, "training.steps=2", f"training.start_from={start}")
    child.ends(0)
    assert "tensors loaded" in child.said and "not loaded: " in child.said


EDITS = (
    onnx.external, onnx.external_attribute, onnx.huge, onnx.negative, onnx.huge_constant,
    onnx.unknown_operator, onnx.unknown_domain, onnx.hidden_in_a_branch, onnx.nested,
    onnx.unknown_type, onnx.grows, onnx.wrong_shape,
)  # fmt: skip


def hostile_onnx(attempt: Attempt) -> None:
    edit = EDITS[attempt.number]
    attempt.note(edit.__name__)
    path, said = write_red(attempt.folder / "hostile.onnx", edit=edit), "it was loaded"
    try:
        load(path)
    except DataError as error:
        said = str(error)
    assert "\n" not in said and said.startswith(str(path)), said


def damaged_onnx(attempt: Attempt) -> None:
    """Truncated or flipped: refused in one line, or with intact metadata, before a runtime."""
    path = write_red(attempt.folder / "damaged.onnx")
    kind = ("cut", "flipped")[attempt.number % 2]
    DAMAGE[kind](path, attempt.rng)
    metadata = onnx.metadata_or_refusal(path)
    assert kind == "flipped" or "seenet" not in metadata


HEADERS: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "header flipped": lambda content, rng: (
        content[:8] + flipped(content[8:], rng, int.from_bytes(content[:8], "little"))
    ),
    "cut": cut,
    "no metadata": lambda *_: save({"weight": torch.ones(3)}, {"format": "../../pt"}),
    "length": lambda content, rng: rng.integers(2**62).tobytes() + content[8:],
}


def hostile_model(attempt: Attempt) -> None:
    """A .safetensors with damaged or invented metadata: one line, exit 4, no other file."""
    path, kind = attempt.folder / "model.safetensors", list(HEADERS)[attempt.number % 4]
    attempt.note(kind)
    save_model(path, create_model("baseline", backbone="test_efficientnet", num_classes=6), SHAPES)
    path.write_bytes(HEADERS[kind](path.read_bytes(), attempt.rng))
    Image.new("RGB", (48, 48)).save(attempt.folder / "picture.png")
    child = seenet(attempt, "predict", str(path), "picture.png", "--device", "cpu")
    attempt.note("harmless" if child.ends(0, 4) == 0 else "refused")
    entries = {entry.name for entry in attempt.folder.iterdir()}
    assert entries <= {path.name, "picture.png", "predictions", "log-0"}, entries
    if child.exitcode:
        child.refuses(str(path))
