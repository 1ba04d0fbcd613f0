"""Gradients in each precision and memory format of training: trusted only where they agree."""

import copy
from collections.abc import Callable
from functools import cache, partial

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


def whole_network(backbone: str) -> nn.Module:
    options = {"width": 8, "p_out": 16, "output_stride": 16, "auxiliary": True}
    return create_model("seenet", backbone=backbone, num_classes=5, **options)  # type: ignore[arg-type]


def pooling_pyramid() -> nn.Module:
    first, second = SeEM(8, (1, 2), 8), SeEM(8 + 16 + 12, (3, 6), 8)
    return ParallelPyramid(first, second, SeEMFS(8 + 16 + 12 + 16 + 16, (7, 13), 8))


RATES = precision.RATES
MODULES: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, int]]]] = {
    "SeEM": (partial(SeEM, 16, RATES, 16), [(16, SIDE)]),
    "SeEM-FS": (partial(SeEMFS, 16, RATES, 16), [(16, SIDE)]),
    "SeEM-FS depthwise": (partial(SeEMFS, 16, RATES, 16, local_conv="depthwise"), [(16, SIDE)]),
    "BAM": (partial(BAM, 16, 12, 5), [(16, SIDE), (12, SIDE)]),
    "Skip": (partial(Skip, 16, 12, 5), [(16, SIDE), (12, SIDE)]),
    "Classifier": (partial(Classifier, 16, 5), [(16, SIDE)]),
    "ASPP": (partial(ASPP, 16, 5, (6, 12, 18, 24)), [(16, SIDE)]),
    "pyramid, pooling": (pooling_pyramid, [(8, SIDE), (12, SIDE // 2), (16, SIDE // 4)]),
    "SeENet, auxiliary head": (partial(whole_network, "resnet10t"), [(3, 4 * SIDE)]),
    # Its blocks have depthwise 5x5 and dilated 3x3 convolutions.
    "SeENet, depthwise": (partial(whole_network, "test_efficientnet"), [(3, 4 * SIDE)]),
}
"""Modules with the channels and sides of their inputs."""

trusted = cache(is_trustworthy)


def outputs(module: nn.Module, inputs: list[torch.Tensor]) -> torch.Tensor:
    """Return all outputs of the module, flat."""
    if isinstance(module, SeENet):
        features = module.forward_features(*inputs)
        return torch.cat([features[name].flatten() for name in ("logits", "auxiliary")])
    found = module(*inputs)
    if isinstance(module, ParallelPyramid):
        found = found[1]
    return torch.cat([part.flatten() for part in (found if isinstance(found, tuple) else (found,))])


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("name", ["fp32", "bf16", pytest.param("fp16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_trusted_gradients_agree_with_float64(
    kind: str, name: precision.Name, memory_format: torch.memory_format, fast: bool
) -> None:
    """Independent of the reference of the check itself.

    The plain modules, which a user's own loop may train, and the faster forms of the trainer.
    """
    if not trusted(name, CPU, memory_format):
        pytest.skip("this processor computes it wrongly: training continues in fp32 here")
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
    ours, theirs = (
        torch.cat([p.grad.double().flatten() for p in m.parameters() if p.grad is not None])
        for m in (module, reference)
    )
    assert len(ours) == sum(parameter.numel() for parameter in module.parameters())
    cosine = nn.functional.cosine_similarity(ours, theirs, dim=0)
    assert cosine > (0.9999 if name == "fp32" else 0.95)


def test_the_check_finds_wrong_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong in some places, as some processors compute them, or not finite."""
    gradients, calls = precision._gradients, []
    assert gradient_cosine("fp32", CPU, torch.contiguous_format) > 0.9999

    def corrupt(*arguments: object) -> torch.Tensor:
        right = gradients(*arguments)  # type: ignore[arg-type]
        calls.append(arguments)
        if len(calls) % 2 == 0:  # the second of each pair is compared with the first
            noise = torch.randn(right[::3].shape, generator=torch.Generator().manual_seed(0))
            right[::3] += 3 * right.abs().max() * noise.double()
        return right

    monkeypatch.setattr(precision, "_gradients", corrupt)
    assert gradient_cosine("fp32", CPU, torch.contiguous_format) < LEAST_COSINE
    monkeypatch.setattr(precision, "_gradients", lambda *given: gradients(*given) * float("nan"))
    assert not gradient_cosine("fp32", CPU, torch.contiguous_format) >= LEAST_COSINE


@pytest.mark.parametrize("code", [0, -11])
def test_untrusted_training_continues_in_fp32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    monkeypatch.setattr(precision, "run_module", lambda *_, **__: Ended(code, "0.3", ""))
    model = create_model("pfp", backbone="resnet18", num_classes=2)
    chosen = precision.choose("auto", CPU, torch.channels_last, model, torch.zeros(1, 3, 4, 4))
    assert chosen.name == "fp32"
    assert "training continues in fp32" in caplog.text


def test_measuring_does_not_change_the_model() -> None:
    model = create_model("seenet", backbone="resnet18", num_classes=2).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    precision._seconds_a_pass(model, torch.randn(2, 3, 32, 32), Precision("fp32", CPU))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
