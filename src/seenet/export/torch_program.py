"""The program for torch itself: one .pt2 archive."""

import io
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from seenet.prediction.bundle import Card
from seenet.prediction.torch_file import CARD


def write_torch(path: Path, program: ExportedProgram, card: Card) -> None:
    """Write `program` with its card; without the example it was traced on, which torch would pickle, and without this machine's paths."""
    program.example_inputs = None
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            node.meta.pop("stack_trace", None)
    stream = io.BytesIO()
    # To a stream: a file's name would stand inside.
    torch.export.save(program, stream, extra_files={CARD: card.text()})
    path.write_bytes(stream.getvalue())
