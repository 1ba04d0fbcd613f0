"""Check the source for calls that could run code of a file, fill the memory or leave a folder."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "seenet"
FORBIDDEN = re.compile(
    r"(_|c|cloud)?[pP]ickle(\..*)?|(dill|joblib|marshal|shelve)(\..*)?"
    r"|eval|exec|__import__|builtins\..*"
    r"|yaml\.(load|load_all|full_load|full_load_all|unsafe_load|unsafe_load_all)"
    r"|os\.(system|popen)|subprocess\.(getoutput|getstatusoutput)|tempfile\.mktemp"
    r"|torch\.hub\.load|shutil\.unpack_archive|.*\.extract(all)?"
    r"|(.*\.)?(MAX_IMAGE_PIXELS|LOAD_TRUNCATED_IMAGES)"
    r"|weights_only=(?!True$).*|(allow_pickle|shell|trust_remote_code)=(?!False$).*"
)
"""Names and keywords; `extract` of an archive makes paths of its names."""
ONE_FILE = {
    "model/unpickle.py": {"torch.load"},
    "export/torch.py": {"torch.export.load", "export.load"},
    "core/image_files.py": {"Image.open", "PIL.Image.open"},
}
"""Calls that only this file may make."""
PRIVATE = {"torch.utils._python_dispatch", "torch.utils._sympy.value_ranges"}
"""Private modules of other packages without a public replacement."""


def imports_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of imports, names and attributes, and of keywords with their value."""
    yield from imports_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.keyword):
            yield node.lineno, f"{node.arg}={ast.unparse(node.value)}"
        elif isinstance(node, ast.Constant) and "IMAGE" in str(node.value):
            yield node.lineno, str(node.value)


def forbidden_in(source: str, file: str = "data/any.py") -> list[str]:
    others = {name for other, names in ONE_FILE.items() if other != file for name in names}
    return [
        f"{file}:{line}: {name}"
        for line, name in names_in(ast.parse(source))
        if FORBIDDEN.fullmatch(name) or name in others
    ]


def private_in(source: str) -> list[str]:
    return [
        name
        for _, name in imports_in(ast.parse(source))
        if re.search(r"(^|\.)_[a-z]", name, re.IGNORECASE)
        and name not in PRIVATE
        and name.rpartition(".")[0] not in PRIVATE
    ]


def test_source_is_free_of_forbidden_and_private_names() -> None:
    found = []
    for path in SRC.rglob("*.py"):
        source, file = path.read_text(encoding="utf-8"), path.relative_to(SRC).as_posix()
        found += forbidden_in(source, file) + [f"{file}: {name}" for name in private_in(source)]
    assert found == []


def test_torch_load_reads_weights_only() -> None:
    source = (SRC / "model/unpickle.py").read_text(encoding="utf-8")
    assert re.findall(r"torch\.load\([^)]*\)", source)
    assert "torch.load(" not in re.sub(r"torch\.load\([^)]*weights_only=True\)", "", source)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "import pickle as p", "from pickle import loads", "import _pickle",
        "import joblib.numpy_pickle", "def f():\n    import marshal", "eval('1')", "run = exec",
        "import builtins; builtins.exec(text)", "from builtins import eval as e",
        "__import__(name)", "yaml.load(text, Loader=yaml.SafeLoader)", "from yaml import load",
        "torch.load(path, weights_only=True)", "from torch import load",
        "load(path, weights_only=flag)", "PIL.Image.MAX_IMAGE_PIXELS = None",
        "setattr(Image, 'MAX_IMAGE_PIXELS', None)", "ImageFile.LOAD_TRUNCATED_IMAGES = True",
        "subprocess.run(line, shell=True)", "subprocess.run(line, shell=flag)", "os.system(line)",
        "from os import system", "np.load(path, allow_pickle=True)", "archive.extractall(folder)",
        "shutil.unpack_archive(path)", "Image.open(path)", "from PIL.Image import open as read",
        "torch.export.load(path)", "torch.hub.load(repository, name)",
        "AutoModel.load(name, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_forbidden_names_are_found(source: str) -> None:
    assert forbidden_in(source)


@pytest.mark.parametrize(
    "source",
    ["model.eval()", "re.compile(text)", "yaml.safe_load(text)", "subprocess.run(words)",
     "np.load(path, allow_pickle=False)", "path.open()"],
)  # fmt: skip
def test_harmless_names_are_not_found(source: str) -> None:
    assert forbidden_in(source) == []


def test_private_names_are_found() -> None:
    assert private_in("from typer import _click\nimport torch._dynamo") != []
    assert private_in("from torch.nn.modules.batchnorm import _BatchNorm, BatchNorm2d") != []
    assert private_in("from __future__ import annotations\nimport seenet.__main__") == []
