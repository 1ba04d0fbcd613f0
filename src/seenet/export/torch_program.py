"""The program for torch itself: one .pt2 archive."""

import io
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from seenet.prediction.bundles.bundle import KEY, Card, Opened, parse_card

CARD = f"{KEY}.json"


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


def open_written(path: Path) -> Opened:
    """Open what `write_torch` has just written, to verify it.

    Never a file from elsewhere: torch's reader unpickles and evaluates what it finds.
    """
    extra = {CARD: ""}
    module = torch.export.load(path, extra_files=extra).module()

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            mask, scores = module(torch.from_numpy(images))
        return scores.numpy(), mask.numpy()

    card = parse_card(path, extra[CARD])
    return Opened(card, f"torch {torch.__version__}", card.precision, run)
