"""What a trace replaces has the same values and is put back; .pt2 archives; fp16 files."""

import itertools
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from timm import layers
from timm.layers import padding, pool2d_same
from torch import nn
from torch.nn import functional

from seenet.core.errors import CheckError, DataError
from seenet.data.shapes import SHAPES
from seenet.export.torch import (
    Portable,
    export_half,
    open_written,
    trace,
    whole_number_padding,
    write_torch,
)
from seenet.model import create_model
from seenet.model.fast.folded import same_padding
from seenet.model.fast.prediction import prediction_form
from seenet.model.files import load_model, save_model
from tests.prediction.bundles.red import card
from tests.prediction.doubles import seenet_command


def test_padding_is_timms() -> None:
    for given in itertools.product(range(1, 70), (1, 2, 3, 5, 7), (1, 2, 3, 4), (1, 2, 5)):
        assert same_padding(*given) == layers.get_same_padding(*given)


@pytest.mark.parametrize(
    "module",
    [
        layers.Conv2dSame(3, 4, (3, 5), stride=2),
        layers.Conv2dSame(3, 4, 3, stride=2, dilation=2),
        layers.Conv2dSame(3, 4, 1, stride=2),
        layers.AvgPool2dSame(3, 2),
        pool2d_same.MaxPool2dSame(3, 2),
        layers.StdConv2dSame(3, 4, 3, stride=2),
        layers.ScaledStdConv2dSame(3, 4, 3, stride=2),
    ],
    ids=repr,
)
def test_padded_layers_answer_alike_and_are_as_before(module: nn.Module) -> None:
    network = nn.Sequential(nn.Identity(), module)
    before = dict(vars(module))
    for height, width in itertools.product((1, 2, 5, 8), (3, 6)):
        x = torch.randn(2, 3, height, width, dtype=torch.float64)
        expected = network.double()(x)
        with whole_number_padding(network):
            assert vars(module) != before
            assert torch.equal(network(x), expected)
    assert vars(module) == before


@pytest.mark.parametrize("folded", [False, True])
def test_sizes_are_traced_as_whole_numbers(folded: bool) -> None:
    """A float among them makes the export to ONNX six times as slow."""
    model = create_model("baseline", backbone="tf_efficientnet_lite0", num_classes=3).eval()
    graph = trace(prediction_form(model, "plain") if folded else model).graph
    names = {
        node.target.__name__
        for node in graph.nodes
        if node.op == "call_function" and not str(node.target).startswith("aten.")
    }
    assert names <= {"add", "floordiv", "mod", "mul", "neg", "sub"} and "mod" in names


def test_nothing_of_the_process_is_replaced() -> None:
    """Another thread, such as a server's, computes as always while one exports."""
    model = create_model("baseline", backbone="tf_efficientnet_lite0", num_classes=3).eval()
    names = [(functional, "avg_pool2d"), (functional, "adaptive_avg_pool2d")]
    names += [(padding, "get_same_padding"), (padding, "pad_same")]
    originals = [getattr(module, name) for module, name in names]
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(trace, model)
        while not job.done():
            assert [getattr(module, name) for module, name in names] == originals
            assert not torch._C._is_torch_function_mode_enabled()
            time.sleep(0.01)
    images = torch.zeros(1, 40, 50, 3, dtype=torch.uint8)
    assert job.result().module()(images)[0].shape == (1, 40, 50)


PAIRS = {"ceil_mode": True, "count_include_pad": False}


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: functional.avg_pool2d(x, 2, **PAIRS),
        lambda x: torch.nn.AvgPool2d((2, 2), 2, **PAIRS)(x),
        # Other means stay as they are.
        lambda x: functional.avg_pool2d(x, 2, padding=1),
        lambda x: functional.avg_pool2d(x, 2, ceil_mode=True, stride=1, padding=1),
        lambda x: functional.avg_pool2d(x, 2, ceil_mode=True),
        lambda x: functional.avg_pool2d(x, 2, **PAIRS, divisor_override=3),
        *[
            lambda x, parts=parts: torch.nn.AdaptiveAvgPool2d(parts)(x)
            for parts in (1, 2, 3, 6, (2, 3), (None, 2))
        ],
    ],
)
def test_means_are_torchs(pool: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for height, width in itertools.product((1, 2, 3, 6, 9), (1, 2, 5, 7)):
        generator = torch.Generator().manual_seed(height * 20 + width)
        x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=generator)
        expected = pool(x)
        with Portable():
            assert torch.allclose(pool(x), expected, rtol=1e-12, atol=1e-15)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    network = create_model(backbone="resnet10t", num_classes=6, p_out=16, width=8).eval()
    save_model(path, network, SHAPES, notes={"step": 3})
    return path


def test_half_the_size_and_the_same_answers(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "half.safetensors"
    assert export_half(model, out) <= 2**-10
    assert out.stat().st_size < 0.55 * model.stat().st_size
    whole, half = load_model(model), load_model(out)
    assert half.notes == {"step": 3, "fp16_of": whole.sha256}
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = whole.model(images), half.model(images)
    assert torch.allclose(one, other, atol=5e-3 * float(one.abs().max()))


@pytest.mark.parametrize("value", [1e6, float("nan")])
@pytest.mark.parametrize("place", [0, -1])
def test_weights_that_change_too_much_are_refused(
    model: Path, tmp_path: Path, value: float, place: int
) -> None:
    saved = load_model(model)
    kernels = [parameter for parameter in saved.model.parameters() if parameter.dim() == 4]
    kernels[place].data.flatten()[0] = value
    save_model(model, saved.model, saved.labels)
    with pytest.raises(CheckError):
        export_half(model, tmp_path / "half.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_nothing_is_overwritten_unasked(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "half.safetensors"
    out.write_text("mine")
    for path, message in (
        (out, "--overwrite"),
        (tmp_path / "half.onnx", r"expected \.safetensors"),
    ):
        with pytest.raises(DataError, match=message):
            export_half(model, path)
    assert out.read_text() == "mine"
    export_half(model, out, overwrite=True)


class Add(torch.nn.Module):
    """A network with two outputs, as `write_torch`'s programs have."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.arange(3.0))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = images.float()[:, : images.shape[1] // 2] + self.bias
        return scores.argmax(-1), scores


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    example = (torch.zeros(2, 6, 3, dtype=torch.uint8),)
    program = torch.export.export(Add(), example, dynamic_shapes=(dynamic,))
    path = tmp_path_factory.mktemp("program") / "add.pt2"
    write_torch(path, program, card())
    return path


def test_the_card_and_the_answers_come_back_without_the_example(archive: Path) -> None:
    opened = open_written(archive)
    assert opened.card == card()
    scores, mask = opened.run(np.ones((4, 9, 3), np.uint8))
    assert np.array_equal(scores, np.broadcast_to(1 + np.arange(3.0), (4, 4, 3)))
    assert (mask == 2).all()
    with zipfile.ZipFile(archive) as content:
        examples = [info for info in content.infolist() if "sample_inputs" in info.filename]
    assert not any(info.file_size for info in examples)


@pytest.mark.parametrize(
    "words", [["predict", "."], ["eval", "data.kind=shapes", "data.size=48", "data.count=50"]]
)
def test_no_command_reads_it(
    archive: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its reader, torch's, runs code that such a file may hold."""
    command, *more = words
    assert seenet_command(command, archive, *more, "--out", tmp_path / "out") == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(archive) in message and ".safetensors" in message
