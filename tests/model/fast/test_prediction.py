"""The folded copy that predicts, and its forms of convolutions, against the network in float64."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seenet.model import VARIANTS
from seenet.model.fast import FORMS, fused, prediction, use_fast
from seenet.model.fast.folded import FoldedConv
from seenet.model.fast.fused import FoldedDepthwise, FoldedLine, FoldedWinograd, FusedConv, fuse
from seenet.model.fast.prediction import Form, prediction_form, state_of
from seenet.prediction.predictor import Predictor
from tests.model.fast.networks import ONEDNN, network, off
from tests.model.networks import images
from tests.prediction.doubles import LABELS, TinyNet


@pytest.mark.parametrize("kind", ["fused", "plain"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant(variant: str, kind: Form) -> None:
    model = network(variant)
    form = prediction_form(model, kind)
    kinds = {type(part) for part in form.modules()} & {FusedConv, FoldedConv, nn.Conv2d}
    assert kinds == {FusedConv if kind == "fused" and ONEDNN else FoldedConv}
    assert not any(isinstance(part, nn.BatchNorm2d) for part in form.modules())
    for height, width, count in ((33, 47, 1), (18, 9, 2), (1, 1, 1)):
        assert off(form, model, images(height, width, count)) <= 1e-5
    assert off(form, model, images(31, 44), size=(50, 13)) <= 1e-5


def test_torch_compile_calls_the_own_forms_and_fuses_the_rest() -> None:
    model = network(width=64)  # lines are worth it from 64 channels on
    form: Any = prediction_form(model, "compiled")
    assert {FoldedLine, FoldedDepthwise} <= {type(part) for part in form.modules()}
    assert {type(conv) for conv in form.reduce.convs} == {FoldedConv}
    assert off(torch.compile(form, backend="eager"), model, images(33, 47)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"backbone": "resnet18"},
        {"backbone": "resnet26t", "refine_stride": 8},
        {"backbone": "tf_efficientnet_lite0", "output_stride": 16},
        {"backbone": "convnext_atto"},
        {"backbone": "mobilenetv3_small_050", "output_stride": 16, "local_conv": "depthwise"},
        {"backbone": "regnetx_002", "output_stride": 32},
        {"backbone": "seresnet18"},
    ],
)
def test_other_backbones(options: dict[str, Any]) -> None:
    model = network(**options)
    form = prediction_form(model)
    assert form is not model
    assert off(form, model, images(65, 33)) <= 1e-5
    assert off(form, model, images(39, 50, 2)) <= 1e-5


def test_model_and_form_are_independent() -> None:
    model, x = network().train(), images(20, 20)
    model.backbone.eval()
    before, modes = copy.deepcopy(model.state_dict()), [part.training for part in model.modules()]
    random, state = torch.get_rng_state(), state_of(model)
    form = prediction_form(model)
    scores = form(x)
    assert state_of(model) == state
    assert [part.training for part in model.modules()] == modes
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.detach().zero_()
    assert torch.equal(form(x), scores)


def test_a_network_in_training_has_the_form_of_its_file() -> None:
    model = network(width=16)
    trained = copy.deepcopy(model).train()
    use_fast(trained)
    assert any(type(module) in FORMS for module in trained.modules())
    x = images(40, 33)
    with torch.no_grad():
        assert torch.equal(prediction_form(trained)(x), prediction_form(model)(x))


def test_hooks_and_other_networks_are_left() -> None:
    other, hooked = TinyNet(), network("baseline")
    hooked.backbone.register_forward_hook(lambda *_: None)
    assert prediction_form(other) is other
    assert prediction_form(hooked) is hooked


def test_a_form_with_other_scores_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def spoil(module: nn.Module) -> None:
        fold(module)
        next(part for part in module.modules() if isinstance(part, FoldedConv)).weight.mul_(1.01)

    fold = prediction.fold
    monkeypatch.setattr(prediction, "fold", spoil)
    model = network("baseline")
    with caplog.at_level(logging.INFO, "seenet"):
        assert prediction_form(model) is model
    assert "scores differ by" in caplog.messages[-1]


def test_a_failing_operator_leaves_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FusedConv, "forward", None)
    model = network("baseline")
    form = prediction_form(model)
    assert form is not model
    assert off(form, model, images(20, 20)) <= 1e-5


PICTURE = np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)


def test_the_predictor_uses_the_form_and_follows_the_weights() -> None:
    model = network("baseline").train()
    predictor = Predictor(model, LABELS, device="cpu")
    scores = [predictor.scores(PICTURE)]
    assert predictor._form is not model and model.training
    for tensor in (model.head.branches[0].weight, model.backbone.norms()[0].running_var):
        tensor.detach().mul_(-2 if tensor.requires_grad else 3)
        scores.append(predictor.scores(PICTURE))
        assert not torch.allclose(scores[-1], scores[-2])
    fresh = Predictor(copy.deepcopy(model), LABELS, device="cpu")
    torch.testing.assert_close(scores[-1], fresh.scores(PICTURE))


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("bf16", 0.1)])
def test_the_predictor_agrees_with_the_plain_network(
    precision: str, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    how = {"device": "cpu", "precision": precision, "scales": (0.5, 1.0), "flip": True}
    found = Predictor(model, LABELS, **how).scores(PICTURE)
    monkeypatch.setattr("seenet.prediction.predictor.prediction_form", lambda model, *_: model)
    plain = Predictor(model, LABELS, **how).scores(PICTURE)
    assert (found.exp() - plain.exp()).abs().max() <= bound


CONVOLUTIONS: dict[type[nn.Module], Callable[..., nn.Conv2d]] = {
    FoldedWinograd: lambda **options: nn.Conv2d(
        256, 264, 3, **{"padding": 2, "dilation": 2} | options
    ),
    FoldedLine: lambda **options: nn.Conv2d(64, 72, (9, 1), padding=(4, 0), **options),
    FoldedDepthwise: lambda **options: nn.Conv2d(
        16, 16, 3, groups=16, **{"padding": 7, "dilation": 7} | options
    ),
}


def check(
    form: type[nn.Module],
    size: tuple[int, int, int],
    *,
    bias: bool = True,
    activation: nn.Module | None = None,
    summed: bool = False,
) -> None:
    """Compare a form of a folded convolution with that in float64."""
    torch.manual_seed(0)
    conv = CONVOLUTIONS[form](bias=bias)
    folded = FoldedConv(conv)
    folded.activation = activation
    root = nn.Sequential(copy.deepcopy(folded))
    fuse(root)
    assert type(root[0]) is form
    x = torch.randn(size[0], conv.in_channels, *size[1:])
    x = x.contiguous(memory_format=torch.channels_last)
    other = torch.randn(folded(x).shape) if summed else None
    expected = folded.double()(x.double(), other.double() if summed else None)
    for _ in range(3):
        found = root[0](x, other)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("form", CONVOLUTIONS)
@pytest.mark.parametrize(
    "options",
    [
        {"bias": False},
        {"activation": nn.ReLU(inplace=True), "summed": True},
        {"activation": nn.ReLU6()},
    ],
)
def test_bias_sum_and_activation(form: type[nn.Module], options: dict[str, Any]) -> None:
    check(form, (2, 16, 25), **options)


def test_large_kernels_are_transformed_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "KEPT_BYTES", 0)
    check(FoldedWinograd, (1, 8, 8))


def test_an_image_that_tiles_do_not_fit() -> None:
    check(FoldedWinograd, (1, 9, 1), activation=nn.ReLU())
