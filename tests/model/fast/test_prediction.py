"""The twin that predicts against the plain network, and its convolutions against the folded ones, in float64."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from seenet.model import VARIANTS
from seenet.model.fast import FORMS, prediction, use_fast
from seenet.model.fast.folding import FoldedConv
from seenet.model.fast.prediction import (
    FoldedDepthwise,
    FoldedLine,
    FoldedWinograd,
    Form,
    FusedConv,
    available,
    fuse,
    prediction_form,
    state_of,
)
from seenet.prediction.predictor import Predictor
from tests.model.fast.networks import network, off
from tests.prediction.doubles import LABELS, TinyNet


def images(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def convolutions(form: nn.Module) -> list[nn.Module]:
    return [part for part in form.modules() if isinstance(part, FoldedConv | FusedConv | nn.Conv2d)]


@pytest.mark.parametrize("kind", ["fused", "plain"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant(variant: str, kind: Form) -> None:
    model = network(variant)
    form = prediction_form(model, kind)
    assert form is not model
    assert not any(isinstance(part, nn.BatchNorm2d) for part in form.modules())
    assert {type(part) for part in convolutions(form)} == {FusedConv if kind == "fused" and available() else FoldedConv}
    for size in ((1, 3, 33, 47), (2, 3, 18, 9), (1, 3, 1, 1)):
        assert off(form, model, images(*size)) <= 1e-5
    assert off(form, model, images(1, 3, 31, 44), size=(50, 13)) <= 1e-5


def test_what_torch_compile_gets_calls_the_steady_forms_and_fuses_the_rest() -> None:
    # Lines are worth it from 64 channels on.
    model = network(width=64)
    form: Any = prediction_form(model, "compiled")
    assert {FoldedLine, FoldedDepthwise} <= {type(part) for part in form.modules()}
    assert {type(conv) for conv in form.reduce.convs} == {FoldedConv}
    graphs: list[fx.GraphModule] = []

    def backend(graph: fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(form, backend=backend)
    assert off(compiled, model, images(1, 3, 33, 47)) <= 1e-5
    assert len(graphs) > 1


BACKBONES = {
    "resnet18": {}, "resnet26t": {"refine_stride": 8}, "tf_efficientnet_lite0": {"output_stride": 16}, "convnext_atto": {},
    "mobilenetv3_small_050": {"output_stride": 16, "local_conv": "depthwise"}, "regnetx_002": {"output_stride": 32}, "seresnet18": {},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_other_backbones(backbone: str) -> None:
    model = network(backbone=backbone, **BACKBONES[backbone])
    form = prediction_form(model)
    assert form is not model
    for size in ((1, 3, 65, 33), (2, 3, 39, 50)):
        assert off(form, model, images(*size)) <= 1e-5


def test_the_model_is_not_touched() -> None:
    model = network().train()
    model.backbone.eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    random, state = torch.get_rng_state(), state_of(model)
    form = prediction_form(model)
    form(images(1, 3, 20, 20))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert state_of(model) == state
    assert torch.equal(torch.get_rng_state(), random)


def test_nothing_is_shared() -> None:
    model = network("baseline")
    form = prediction_form(model)
    x = images(1, 3, 20, 20)
    with torch.no_grad():
        before = form(x)
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
        assert torch.equal(form(x), before)


def test_a_network_in_training_has_the_twin_of_its_file() -> None:
    model, x = network(width=16), images(1, 3, 40, 33)
    form = prediction_form(model)
    trained = copy.deepcopy(model).train()
    use_fast(trained)
    assert any(type(module) in FORMS for module in trained.modules())
    with torch.no_grad():
        assert torch.equal(prediction_form(trained)(x), form(x))


def test_a_deep_copy_answers_the_same() -> None:
    model = network()
    form = prediction_form(model)
    x = images(1, 3, 20, 20)
    with torch.no_grad():
        expected = [form(x) for _ in range(3)][-1]
        other = copy.deepcopy(form)
        other(images(1, 3, 40, 20))
        assert torch.equal(form(x), expected)
        torch.testing.assert_close(other(x), expected, rtol=1e-5, atol=1e-5)


def test_a_network_with_hooks_or_of_another_kind_is_left() -> None:
    other, hooked = TinyNet(), network("baseline")
    hooked.backbone.register_forward_hook(lambda *_: None)
    assert prediction_form(other) is other
    assert prediction_form(hooked) is hooked


def test_a_twin_that_answers_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def spoil(module: nn.Module) -> nn.Module:
        folded = fold(module)
        next(part for part in folded.modules() if isinstance(part, FoldedConv)).weight.mul_(1.01)
        return folded

    fold = prediction.fold
    monkeypatch.setattr(prediction, "fold", spoil)
    model = network("baseline")
    with caplog.at_level(logging.INFO, "seenet"):
        caplog.clear()
        assert prediction_form(model) is model
    (record,) = caplog.records
    assert "plain network" in record.getMessage() and "scores differ by" in record.getMessage()


def test_a_failing_operator_leaves_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("not on this processor")

    monkeypatch.setattr(FusedConv, "forward", broken)
    model = network("baseline")
    form = prediction_form(model)
    assert form is not model
    assert off(form, model, images(1, 3, 20, 20)) <= 1e-5


def picture(height: int = 21, width: int = 34) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_the_predictor_predicts_by_its_twin_and_follows_the_weights() -> None:
    model = network("baseline").train()
    predictor = Predictor(model, LABELS, device="cpu")
    first = predictor.scores(picture())
    assert predictor._form[1] is not model and model.training
    assert torch.equal(predictor.scores(picture()), first)
    with torch.no_grad():
        next(model.parameters()).mul_(-2)
    changed = predictor.scores(picture())
    assert not torch.allclose(changed, first)
    torch.testing.assert_close(changed, Predictor(copy.deepcopy(model), LABELS, device="cpu").scores(picture()))
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).running_var.mul_(3)
    assert not torch.allclose(predictor.scores(picture()), changed)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_predictor_agrees_with_the_plain_network(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    found = Predictor(model, LABELS, device="cpu", precision=precision, scales=(0.5, 1.0), flip=True).scores(picture())
    monkeypatch.setattr("seenet.prediction.predictor.prediction_form", lambda model, *_: model)
    plain = Predictor(model, LABELS, device="cpu", precision=precision, scales=(0.5, 1.0), flip=True).scores(picture())
    bound = 1e-4 if precision == "fp32" else 0.1
    assert (found.exp() - plain.exp()).abs().max() <= bound


def test_a_deep_copy_of_a_used_predictor() -> None:
    predictor = Predictor(network("baseline"), LABELS, device="cpu")
    for _ in range(3):
        expected = predictor.scores(picture())
    torch.testing.assert_close(copy.deepcopy(predictor).scores(picture()), expected)


STEADY: dict[type[nn.Module], dict[str, Any]] = {
    FoldedWinograd: {"in_channels": 256, "out_channels": 264, "kernel_size": 3, "padding": 2, "dilation": 2},
    FoldedLine: {"in_channels": 64, "out_channels": 72, "kernel_size": (9, 1), "padding": (4, 0)},
    FoldedDepthwise: {"in_channels": 16, "out_channels": 16, "kernel_size": 3, "padding": 7, "dilation": 7, "groups": 16},
}


def conv(form: type[nn.Module], bias: bool, activation: nn.Module | None) -> FoldedConv:
    torch.manual_seed(0)
    folded = FoldedConv(nn.Conv2d(**STEADY[form], bias=bias))
    folded.activation = activation
    return folded


def check(folded: FoldedConv, form: type[nn.Module], x: torch.Tensor, summed: bool) -> None:
    root = nn.Sequential(copy.deepcopy(folded))
    fuse(root)
    assert type(root[0]) is form
    expected = folded.double()
    with torch.inference_mode():
        other = torch.randn(expected(x.double()).shape, dtype=torch.float64) if summed else None
        wanted = expected(x.double(), other)
        for _ in range(3):
            found = root[0](x) if other is None else root[0](x, other.float())
            assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("form", STEADY)
@pytest.mark.parametrize(
    ("bias", "activation", "summed"), [(False, None, False), (True, nn.ReLU(inplace=True), True), (True, nn.ReLU6(), False)]
)
def test_what_follows_is_done(form: type[nn.Module], bias: bool, activation: nn.Module | None, summed: bool) -> None:
    x = torch.randn(2, STEADY[form]["in_channels"], 16, 25).contiguous(memory_format=torch.channels_last)
    check(conv(form, bias, activation), form, x, summed)


def test_large_kernels_are_transformed_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "KEPT_BYTES", 0)
    check(conv(FoldedWinograd, True, None), FoldedWinograd, torch.randn(1, 256, 8, 8), False)


def test_a_picture_that_tiles_do_not_fit() -> None:
    check(conv(FoldedWinograd, True, nn.ReLU()), FoldedWinograd, torch.randn(1, 256, 9, 1), False)


@pytest.mark.parametrize("change", [{"stride": 2}, {"padding": 0}, {"dilation": 1}])
def test_others_are_oneDNN_s(change: dict[str, int]) -> None:
    root = nn.Sequential(FoldedConv(nn.Conv2d(**STEADY[FoldedDepthwise] | change)))
    fuse(root)
    assert type(root[0]) is FusedConv
