"""A gate on the syntax tree: what would let a file run code, fill the memory or leave its folder does not stand in src/."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "seenet"
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "__import__"}
CALLS = {
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "os.system",
    "os.popen",
    "subprocess.getoutput", "subprocess.getstatusoutput", "torch.hub.load", "shutil.unpack_archive", "tempfile.mktemp",
}  # fmt: skip
METHODS = {"extract", "extractall"}
"""Of archives: their names would become paths."""
KEYWORDS = {"weights_only": True, "allow_pickle": False, "shell": False, "trust_remote_code": False}
"""The one value each may have, written out."""
SETTINGS = {"MAX_IMAGE_PIXELS", "LOAD_TRUNCATED_IMAGES"}
PRIVATE = {"torch.utils._python_dispatch", "torch.utils._sympy.value_ranges"}
"""Modules that other packages keep to themselves and that are used all the same: nothing public does what they do."""
DOORS = {"torch.load": "model/unpickle.py", "Image.open": "core/image_files.py"}
"""Calls that one file alone may make."""


def found_in(source: str, where: str = "data/any.py") -> list[str]:
    """Line and name of what is forbidden in a file."""
    return [f"{line}: {name}" for line, name in sorted(_found(ast.parse(source), where))]


def _found(tree: ast.AST, where: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            shut = {*CALLS, *DOORS, "PIL.Image.open"}
            yield from ((node.lineno, name) for name in full if name in shut or (node.module or "").split(".")[0] in MODULES)
            yield from ((node.lineno, name) for name in full if name.startswith("builtins."))
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            short = ".".join(name.split(".")[-2:])
            if name.startswith("builtins.") or name in CALLS or (short in DOORS and where != DOORS[short]):
                yield node.lineno, name
        elif isinstance(node, ast.Call):
            yield from _in_call(node)
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((node.lineno, name) for name in map(ast.unparse, targets) if name.split(".")[-1] in SETTINGS)


def _in_call(node: ast.Call) -> Iterator[tuple[int, str]]:
    if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        yield node.lineno, ast.unparse(node.func)
    if ast.unparse(node.func) == "torch.load" and not any(keyword.arg == "weights_only" for keyword in node.keywords):
        yield node.lineno, "torch.load without weights_only=True"
    if ast.unparse(node.func) == "setattr" and len(node.args) > 1 and ast.unparse(node.args[1]).strip("'\"") in SETTINGS:
        yield node.lineno, ast.unparse(node)
    for keyword in node.keywords:
        if keyword.arg in KEYWORDS and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is KEYWORDS[keyword.arg]):
            yield node.lineno, f"{keyword.arg}={ast.unparse(keyword.value)}"


def test_nothing_forbidden_in_src() -> None:
    files = sorted(SRC.rglob("*.py"))
    assert len(files) > 100
    found = {
        path.relative_to(SRC).as_posix(): found_in(path.read_text(encoding="utf-8"), path.relative_to(SRC).as_posix()) for path in files
    }
    assert {path: lines for path, lines in found.items() if lines} == {}


def private_in(source: str) -> list[str]:
    """What a file imports that another package, by a leading underscore, may take away at any time."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(str(node.module), f"{node.module}.{alias.name}") for alias in node.names]
    return [name for module, name in found if re.search(r"(^|\.)_[a-z]", name, re.IGNORECASE) and module not in PRIVATE]


def test_nothing_private_of_others_is_imported() -> None:
    found = {path.relative_to(SRC).as_posix(): private_in(path.read_text(encoding="utf-8")) for path in SRC.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}
    assert private_in("from typer import _click") == ["typer._click"]
    assert private_in("import torch._dynamo\nfrom torch.nn.modules.batchnorm import _BatchNorm, BatchNorm2d") != []
    assert private_in("from __future__ import annotations\nimport seenet.__main__") == []


@pytest.mark.parametrize("name", DOORS)
def test_each_door_is_there(name: str) -> None:
    assert f"{name}(" in (SRC / DOORS[name]).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "import pickle as p", "from pickle import loads", "import joblib.numpy_pickle", "def f():\n    import marshal",
        "eval('1')", "exec(text)", "run = eval", "import builtins; builtins.exec(text)", "from builtins import eval as e",
        "__import__(name)", "yaml.load(text)", "yaml.load(text, Loader=yaml.SafeLoader)", "from yaml import load",
        "yaml.unsafe_load(text)", "torch.load(path)", "torch.load(path, weights_only=True)", "torch.load(path, weights_only=False)",
        "from torch import load", "load(path, weights_only=flag)", "Image.MAX_IMAGE_PIXELS = None", "PIL.Image.MAX_IMAGE_PIXELS = 10**12",
        "setattr(Image, 'MAX_IMAGE_PIXELS', None)", "ImageFile.LOAD_TRUNCATED_IMAGES = True", "subprocess.run(line, shell=True)",
        "subprocess.run(line, shell=flag)", "os.system(line)", "from os import system", "np.load(path, allow_pickle=True)",
        "archive.extractall(folder)", "archive.extract(name)", "shutil.unpack_archive(path)", "Image.open(path)", "PIL.Image.open(path)",
        "from PIL.Image import open as read", "torch.hub.load(repository, name)", "AutoModel.load(name, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_gate_bites(source: str) -> None:
    assert found_in(f"x = 1\n{source}\n")


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "re.compile(text)",
        "yaml.safe_load(text)",
        "np.load(path, allow_pickle=False)",
        "subprocess.run(words)",
        "path.open()",
    ],
)
def test_what_is_harmless_passes(source: str) -> None:
    assert found_in(source) == []


def test_a_door_still_wants_its_keyword() -> None:
    assert found_in("torch.load(path, weights_only=True)", "model/unpickle.py") == []
    assert found_in("torch.load(path)", "model/unpickle.py") == ["1: torch.load without weights_only=True"]
