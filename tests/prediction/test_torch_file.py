"""torch's archives hold what torch would unpickle and evaluate: whatever is not a tensor or an operator is refused before."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seenet.core.errors import DataError
from seenet.export.torch import write_torch
from seenet.prediction.torch_file import load_program
from tests.prediction.bundles import card

Members = dict[str, bytes]


class Add(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.arange(3.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float()[:, : images.shape[1] // 2] + self.bias


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Add(), (torch.zeros(2, 6, 3, dtype=torch.uint8),), dynamic_shapes=(dynamic,))
    program._guards_code = []
    path = tmp_path_factory.mktemp("program") / "add.pt2"
    write_torch(path, program, card())
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def changed(members: Members, end: str, edit: Callable[[Any], None]) -> Members:
    """With the JSON of the one member of this ending edited."""
    (name,) = [name for name in members if name.endswith(end)]
    values = json.loads(members[name])
    edit(values)
    return {**members, name: json.dumps(values).encode()}


def everywhere(values: Any, key: str, new: Any) -> None:
    """Replace the first value that stands under `key`, at any depth."""
    if isinstance(values, dict):
        if key in values:
            values[key] = new
            return
        values = list(values.values())
    for value in values if isinstance(values, list) else ():
        everywhere(value, key, new)


def pickled(values: Any) -> None:
    next(iter(values["config"].values()))["use_pickle"] = True


def custom(values: Any) -> None:
    values["config"]["x"] = {"path_name": "custom_obj_0", "use_pickle": False}


HOSTILE: dict[str, Callable[[Members], Members]] = {
    "a pickled object": lambda m: changed(m, "weights_config.json", pickled),
    "a pickled object 'custom_obj_0'": lambda m: changed(m, "constants_config.json", custom),
    "pickled sample inputs": lambda m: {**m, "archive/data/sample_inputs/model.pt": b"x"},
    "guards, which are code": lambda m: changed(m, "models/model.json", lambda v: everywhere(v, "guards_code", ["exit()"])),
    "the expression": lambda m: changed(m, "models/model.json", lambda v: everywhere(v, "expr_str", "__import__('os').abort()")),
    "the operator 'torch.load'": lambda m: changed(m, "models/model.json", lambda v: everywhere(v, "target", "torch.load")),
    "a member 'data/weights/model.pt'": lambda m: {**m, "archive/data/weights/model.pt": b"x"},
    "two members of one name": lambda m: {**m, "archive/MODELS/model.json": b"{}"},
}


def test_what_is_ours_is_read(members: Members, tmp_path: Path) -> None:
    text, program = load_program(write(tmp_path / "add.pt2", members))
    assert text == card().text()
    images = torch.ones(4, 9, 3, dtype=torch.uint8)
    assert torch.equal(program.module()(images), (1 + torch.arange(3.0)).expand(4, 4, 3))


@pytest.mark.parametrize("found", HOSTILE)
def test_what_would_run_is_refused(members: Members, tmp_path: Path, found: str) -> None:
    path = write(tmp_path / "hostile.pt2", HOSTILE[found](members))
    with pytest.raises(DataError, match=f"refused: found {found}"):
        load_program(path)


def test_truncated(members: Members, tmp_path: Path) -> None:
    path = write(tmp_path / "add.pt2", members)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"truncated, or no program of torch\.export"):
            load_program(path)
    place = whole.index(members["archive/models/model.json"]) + 50
    path.write_bytes(whole[:place] + b"#" + whole[place + 1 :])
    with pytest.raises(DataError, match=r"a checksum is wrong|truncated"):
        load_program(path)
