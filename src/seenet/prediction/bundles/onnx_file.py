"""Look at an ONNX file before a runtime does: files from elsewhere are refused here, in one line. Imports no torch."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seenet.core.errors import DataError

MAX_BYTES = 2 * 2**30 - 1
"""Of protobuf."""
MAX_NESTING = 8
MAX_CONSTANT = 2**28
"""Largest number in a small constant: sizes that a graph makes of it would not fit anyway."""
SMALL = 64
"""Elements up to which an integer constant may be a size."""
DOMAINS = ("", "ai.onnx")


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file whose graph holds nothing that a bundle has no use for.

    Raises DataError: truncated or no ONNX; tensors in other files, or that say another size than they have; operators or domains that ONNX
    does not define; constants that would make huge tensors.
    """
    import onnx
    from google.protobuf.message import DecodeError

    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise DataError(f"{path}: {size} bytes, expected an ONNX file of 1 to {MAX_BYTES}; export it again")
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except (DecodeError, RecursionError) as error:
        raise DataError(f"{path}: truncated, or no ONNX file ({type(error).__name__}); copy or export it again") from None
    if not model.graph.node or not model.graph.output:
        raise DataError(f"{path}: an ONNX file without a graph, expected a model; copy or export it again")
    foreign = [entry.domain for entry in model.opset_import if entry.domain not in DOMAINS]
    if foreign:
        raise _refused(path, f"operators of domain {foreign[0][:80]!r}", "those of ai.onnx alone")
    for graph in (model.graph, *model.functions):
        _check_graph(path, graph, 0)
    return {entry.key: entry.value for entry in model.metadata_props}


def _check_graph(path: Path, graph: Any, depth: int) -> None:
    from onnx import defs

    if depth > MAX_NESTING:
        raise _refused(path, f"graphs nested over {MAX_NESTING} deep", "fewer")
    for tensor in getattr(graph, "initializer", ()):
        _check_tensor(path, tensor)
    if len(getattr(graph, "sparse_initializer", ())):
        raise _refused(path, "sparse tensors", "dense ones")
    for node in graph.node:
        # Text that is no UTF-8 comes as bytes.
        if node.domain not in DOMAINS or not isinstance(node.op_type, str) or not defs.has(node.op_type):
            raise _refused(path, f"operator {f'{node.domain}.{node.op_type}'.strip('.')[:80]!r}", "those of ai.onnx alone")
        for attribute in node.attribute:
            for tensor in _tensors(attribute):
                _check_tensor(path, tensor)
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _check_graph(path, inner, depth + 1)


def _tensors(attribute: Any) -> Iterator[Any]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors


def _check_tensor(path: Path, tensor: Any) -> None:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    name = repr(tensor.name[:60])
    if tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data):
        raise _refused(path, f"tensor {name} in another file", "all of them inside")
    if any(side < 0 for side in tensor.dims):
        raise _refused(path, f"tensor {name} of size {list(tensor.dims)[:8]}", "sides from 0")
    count = math.prod(tensor.dims)
    try:
        there = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        room = len(tensor.raw_data) if tensor.HasField("raw_data") else _listed(tensor, helper) * there.itemsize
        # Types of under a byte are packed; none is larger in memory than in its list.
        if not (count * there.itemsize == room or (there.itemsize == 1 and 0 < (count + 1) // 2 == room)):
            raise _refused(path, f"tensor {name} of {count} elements in {room} bytes", "as many bytes as its size says")
        if count <= SMALL and np.issubdtype(there, np.integer) and count:
            values = numpy_helper.to_array(tensor).astype(np.float64)
            # The largest integers stand for "to the end" in slices.
            if any(MAX_CONSTANT < abs(value) < 2**31 - 1 for value in values.ravel()):
                raise _refused(path, f"tensor {name} with {int(abs(values).max())}", f"sizes up to {MAX_CONSTANT}")
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(path, f"tensor {name} that cannot be read ({' '.join(str(error).split())[:80]})", "whole ones") from None


def _listed(tensor: Any, helper: Any) -> int:
    return len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))


def _refused(path: Path, found: str, expected: str) -> DataError:
    return DataError(f"{path}: refused: found {found}, expected {expected}; export it again, or do not use this file")
