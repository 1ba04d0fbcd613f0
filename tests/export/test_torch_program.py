"""A .pt2 archive answers as its program, and says nothing of the machine it was made on."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from seenet.cli import main
from seenet.export.torch_program import open_written, write_torch
from tests.prediction.bundles.red import card


class Add(torch.nn.Module):
    """Two outputs, as `write_torch`'s programs have."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.arange(3.0))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = images.float()[:, : images.shape[1] // 2] + self.bias
        return scores.argmax(-1), scores


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Add(), (torch.zeros(2, 6, 3, dtype=torch.uint8),), dynamic_shapes=(dynamic,))
    path = tmp_path_factory.mktemp("program") / "add.pt2"
    write_torch(path, program, card())
    return path


def test_the_card_and_the_answers_come_back(archive: Path) -> None:
    opened = open_written(archive)
    assert opened.card == card()
    scores, mask = opened.run(np.ones((4, 9, 3), np.uint8))
    assert np.array_equal(scores, np.broadcast_to(1 + np.arange(3.0), (4, 4, 3)))
    assert (mask == 2).all()


def test_the_traced_example_is_not_pickled(archive: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        examples = [info for info in content.infolist() if "sample_inputs" in info.filename]
    assert not any(info.file_size for info in examples)


@pytest.mark.parametrize("command", ["predict", "eval"])
def test_no_command_reads_it(archive: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its reader, torch's, runs code that such a file may hold."""
    more = {"predict": [str(tmp_path)], "eval": ["data.kind=shapes", "data.size=48", "data.count=50"]}[command]
    with pytest.raises(SystemExit) as caught:
        main([command, str(archive), *more, "--out", str(tmp_path / "out")])
    assert caught.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert str(archive) in said[-1] and ".safetensors" in said[-1]
