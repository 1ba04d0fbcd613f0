"""Models by run folder, file or name; their answers do not depend on torch's default type."""

from pathlib import Path

import numpy as np
import pytest
import torch

import seenet
from seenet.core.files import sha256
from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.model.files import save_model
from tests.prediction.doubles import picture


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with a small SeENet."""
    torch.manual_seed(0)
    model = create_model(backbone="resnet18", num_classes=6, width=8, p_out=16, output_stride=32)
    folder = tmp_path_factory.mktemp("runs") / "street"
    save_model(folder / "model.safetensors", model, SHAPES)
    return folder


def test_a_run_and_its_file_are_the_same_model(run):
    image, file = picture(33, 47), run / "model.safetensors"
    one, other = seenet.load(run, device="cpu"), seenet.load(file, device="cpu")
    assert torch.equal(one.scores(image), other.scores(image))
    assert one.labels == SHAPES
    assert one.info == {"file": str(file), "sha256": sha256(file)}
    result = one(image)
    assert np.array_equal(result.probabilities.argmax(0), result.mask)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (31, 33)])
@pytest.mark.parametrize("scale", [0.001, 0.4, 2.3])
def test_a_network_takes_every_size_scale_and_flip(run, size, scale):
    predictor = seenet.load(run, device="cpu", scales=(scale, 1.0), flip=True)
    scores = predictor.scores(np.full((*size, 3), 90, np.uint8))
    assert scores.shape == (6, *size)
    torch.testing.assert_close(scores.exp().sum(0), torch.ones(size))


@pytest.mark.parametrize(
    "options", [{}, {"scales": (0.7, 1.3), "flip": True, "tile": 64, "margin": 0}]
)
def test_answers_do_not_depend_on_the_default_type(run, options, request):
    image = picture(70, 81)
    before = seenet.load(run, device="cpu", **options)
    expected = before.scores(image)
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    torch.set_default_dtype(torch.float64)
    for net in (before, seenet.load(run, device="cpu", **options)):
        # Softmax rounds by the place in memory, and a plain network otherwise than a folded one.
        torch.testing.assert_close(net.scores(image), expected, rtol=0, atol=2e-6)
        assert np.array_equal(net(image).mask, expected.argmax(0).numpy())
