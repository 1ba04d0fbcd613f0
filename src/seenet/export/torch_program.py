"""The program for torch itself: one .pt2 archive."""

import io
from pathlib import Path

import torch
from torch.export import ExportedProgram

from seenet.prediction.bundle import Card
from seenet.prediction.torch_file import CARD


def write_torch(path: Path, program: ExportedProgram, card: Card) -> None:
    """Write `program` with its card, without the example it was traced on, which torch would pickle."""
    program.example_inputs = None
    stream = io.BytesIO()
    # To a stream: a file's name would stand inside.
    torch.export.save(program, stream, extra_files={CARD: card.text()})
    path.write_bytes(stream.getvalue())
