"""A program of torch.export from its archive, after a look at whatever the reader would run or unpickle."""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from seenet.core.errors import DataError
from seenet.prediction.bundles.bundle import KEY

CARD = f"{KEY}.json"
# As sympy writes itself: Mul(Integer(8), FloorDiv(Symbol('s14', positive=True, integer=True), Integer(16))).
_WORDS = frozenset(
    ("Add", "FloorDiv", "Integer", "Max", "Min", "Mod", "Mul", "PythonMod", "Rational", "Symbol", "True", "False", "integer", "positive")
)
_TARGET = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.\w+|math\.\w+|torch\.sym_\w+")
_MEMBER = re.compile(r"data/(weights|constants)/(weight|tensor)_\d+|archive_format|archive_version|version|byteorder|\.(data|format)/\w+")


def load_program(path: Path) -> tuple[str | None, Any]:
    """The card's text and the `torch.export.ExportedProgram`.

    torch's own reader unpickles and evaluates what an archive tells it to, so the archive is looked at before: tensors as bytes and
    operators of aten are all that it may hold. DataError: anything else, or a damaged file.
    """
    import torch

    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.testzip() is not None:
                raise DataError(f"{path}: damaged (a checksum is wrong); copy or export it again")
            text = _check(path, archive)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, NotImplementedError, RecursionError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: truncated, or no program of torch.export ({type(error).__name__}); copy or export it again") from None
    try:
        return text, torch.export.load(io.BytesIO(content))
    except Exception as error:  # the reader raises whatever a strange graph leads to
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: torch {torch.__version__} cannot read it ({type(error).__name__}: {reason}); export it again") from None


def _check(path: Path, archive: zipfile.ZipFile) -> str | None:
    """Refuse whatever would be unpickled or evaluated; returns the card's text, if any."""
    text = None
    names = archive.namelist()
    if len({name.lower() for name in names}) < len(names):
        # Which of two the reader takes is its own affair.
        raise _refused(path, "two members of one name")
    for name in names:
        inside = name.partition("/")[2]
        if inside == f"extra/{CARD}":
            text = archive.read(name).decode()
        elif inside.startswith("models/"):
            _check_program(path, json.loads(archive.read(name)))
        elif inside.startswith("data/") and inside.endswith("config.json"):
            for entry in json.loads(archive.read(name))["config"].values():
                if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                    raise _refused(path, f"a pickled object {entry['path_name'][:60]!r}")
        elif inside.startswith("data/sample_inputs/"):
            if archive.getinfo(name).file_size:
                raise _refused(path, "pickled sample inputs")
        elif not _MEMBER.fullmatch(inside):
            raise _refused(path, f"a member {inside[:60]!r}")
    return text


def _check_program(path: Path, node: Any) -> None:
    """Walk the graph's JSON: expressions of sizes and operators are what torch evaluates."""
    if isinstance(node, list):
        for value in node:
            _check_program(path, value)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "guards_code" and value:
                raise _refused(path, "guards, which are code")
            if key == "expr_str" and not _harmless(str(value)):
                raise _refused(path, f"the expression {str(value)[:60]!r}")
            if key == "target" and isinstance(value, str) and re.search("[.#]", value) and not _TARGET.fullmatch(value):
                raise _refused(path, f"the operator {value[:60]!r}")
            _check_program(path, value)


def _harmless(expression: str) -> bool:
    """Whole numbers, symbols (s0, u1) and arithmetic alone."""
    words = re.findall(r"[A-Za-z_]\w*", expression)
    return bool(re.fullmatch(r"[\w\s+\-*/%(),='<>]*", expression)) and all(re.fullmatch(r"[suz]\d+", w) or w in _WORDS for w in words)


def _refused(path: Path, found: str) -> DataError:
    return DataError(
        f"{path}: refused: found {found}, expected tensors and operators of aten alone; export it again, or do not use this file"
    )
