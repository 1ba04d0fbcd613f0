"""Gradients in every precision and memory format that training uses: trusted only where they agree."""

import copy
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from seenet.core.child import Ended
from seenet.model import SeENet, create_model
from seenet.model.fast import use_fast
from seenet.model.seenet import ASPP, BAM, Classifier, ParallelPyramid, SeEM, SeEMFS, Skip
from seenet.training import precision
from seenet.training.precision import LEAST_COSINE, Precision, gradient_cosine, is_trustworthy

CPU = torch.device("cpu")


SIDE = 32


def _whole_network(backbone: str = "resnet10t") -> nn.Module:
    return create_model("seenet", backbone=backbone, num_classes=5, width=8, p_out=16, output_stride=16, auxiliary=True)


MODULES: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, int]]]] = {
    "SeEM": (lambda: SeEM(16, precision.RATES, 16), [(16, SIDE)]),
    "SeEM-FS": (lambda: SeEMFS(16, precision.RATES, 16), [(16, SIDE)]),
    "SeEM-FS depthwise": (lambda: SeEMFS(16, precision.RATES, 16, local_conv="depthwise"), [(16, SIDE)]),
    "BAM": (lambda: BAM(16, 12, 5), [(16, SIDE), (12, SIDE)]),
    "Skip": (lambda: Skip(16, 12, 5), [(16, SIDE), (12, SIDE)]),
    "Classifier": (lambda: Classifier(16, 5), [(16, SIDE)]),
    "ASPP": (lambda: ASPP(16, 5, (6, 12, 18, 24)), [(16, SIDE)]),
    "pyramid, pooling": (
        lambda: ParallelPyramid(SeEM(8, (1, 2), 8), SeEM(8 + 16 + 12, (3, 6), 8), SeEMFS(8 + 16 + 12 + 16 + 16, (7, 13), 8)),
        [(8, SIDE), (12, SIDE // 2), (16, SIDE // 4)],
    ),
    "SeENet, auxiliary head": (_whole_network, [(3, 4 * SIDE)]),
    # Its blocks hold depthwise 5x5 and dilated 3x3 convolutions.
    "SeENet, depthwise backbone": (lambda: _whole_network("test_efficientnet"), [(3, 4 * SIDE)]),
}
"""What has gradients, and the channels and sides of its inputs."""

trusted = cache(is_trustworthy)


def outputs(module: nn.Module, inputs: list[torch.Tensor]) -> torch.Tensor:
    """All that the module gives, flat."""
    found = module.forward_features(*inputs) if isinstance(module, SeENet) else module(*inputs)
    if isinstance(found, dict):
        found = (found["logits"], found["auxiliary"])
    if isinstance(module, ParallelPyramid):
        found = found[1]
    return torch.cat([part.flatten() for part in found]) if isinstance(found, tuple) else found.flatten()


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_what_is_trusted_agrees_with_float64(kind: str, name: precision.Name, memory_format: torch.memory_format, fast: bool) -> None:
    """Independent of the check's own reference: where it trusts, the gradients of every part agree with float64.

    Of the plain modules, which a loop of the user's trains, and of the faster forms, which the trainer takes.
    """
    if not trusted(name, CPU, memory_format):
        pytest.skip("this processor computes it wrongly: training goes on in fp32 here")
    build, shapes = MODULES[kind]
    torch.manual_seed(0)
    module = build().train()
    reference = copy.deepcopy(module).double()
    inputs = [torch.randn(4, channels, side, side) for channels, side in shapes]
    module.to(memory_format=memory_format)
    if fast:
        use_fast(module)
    with Precision(name, CPU).autocast():
        found = outputs(module, [value.contiguous(memory_format=memory_format) for value in inputs])
    expected = outputs(reference, [value.double() for value in inputs])
    signs = torch.randn(found.shape).sign()
    (found.float() * signs).mean().backward()
    (expected * signs).mean().backward()
    ours, theirs = (torch.cat([p.grad.double().flatten() for p in m.parameters() if p.grad is not None]) for m in (module, reference))
    assert len(ours) == sum(parameter.numel() for parameter in module.parameters())
    assert nn.functional.cosine_similarity(ours, theirs, dim=0) > (0.9999 if name == "fp32" else 0.95)


def test_the_check_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that are wrong in some places, as some processors compute them, are found out; so are some that are not finite."""
    honest = precision._gradients
    assert gradient_cosine("fp32", CPU, torch.contiguous_format) > 0.9999
    calls = []

    def corrupt(module: SeEM, images: torch.Tensor, number: Precision, layout: torch.memory_format) -> torch.Tensor:
        gradients = honest(module, images, number, layout)
        calls.append(number)
        if len(calls) % 2 == 0:  # the second of each pair is the one that is looked at
            noise = torch.randn(gradients[::3].shape, generator=torch.Generator().manual_seed(0)).double()
            gradients[::3] += 3 * gradients.abs().max() * noise
        return gradients

    monkeypatch.setattr(precision, "_gradients", corrupt)
    assert gradient_cosine("fp32", CPU, torch.contiguous_format) < LEAST_COSINE
    monkeypatch.setattr(precision, "_gradients", lambda *arguments: honest(*arguments) * float("nan"))
    assert not gradient_cosine("fp32", CPU, torch.contiguous_format) >= LEAST_COSINE


@pytest.mark.parametrize("returncode", [0, -11])
def test_untrusted_training_goes_on_in_fp32(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, returncode: int) -> None:
    monkeypatch.setattr(precision, "run_module", lambda *_, **__: Ended(returncode, "0.3", ""))
    chosen = precision.choose(
        "auto", CPU, torch.channels_last, create_model("pfp", backbone="resnet18", num_classes=2), torch.zeros(1, 3, 4, 4)
    )
    assert chosen.name == "fp32"
    assert "training goes on in fp32" in caplog.text


def test_measuring_leaves_the_model_as_it_was() -> None:
    model = create_model("seenet", backbone="resnet18", num_classes=2).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    precision._seconds(model, torch.randn(2, 3, 32, 32), Precision("fp32", CPU))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
