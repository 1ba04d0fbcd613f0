"""Gradients in every precision and memory format that training uses: trusted only where they agree."""

from types import SimpleNamespace

import pytest
import torch

from seenet.model.seem import SeEM
from seenet.training import precision
from seenet.training.precision import LEAST_COSINE, Precision, gradient_cosine, is_trustworthy

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_what_is_trusted_agrees_with_float64(name: precision.Name, memory_format: torch.memory_format) -> None:
    """Independent of the check's own reference: where it trusts, each parameter's gradient agrees with float64."""
    if not is_trustworthy(name, CPU, memory_format):
        assert name != "fp32"  # what this processor gets wrong, training does not use
        return
    torch.manual_seed(0)
    module = SeEM(16, precision.RATES, width=16)
    reference = SeEM(16, precision.RATES, width=16).double()
    reference.load_state_dict(module.state_dict())
    images, signs = torch.randn(2, 16, 32, 32), torch.randn(2, 80, 32, 32).sign()
    module.to(memory_format=memory_format)
    with Precision(name, CPU).autocast():
        out = module(images.contiguous(memory_format=memory_format))
    (out.float() * signs).mean().backward()
    (reference(images.double()) * signs).mean().backward()
    found = torch.cat([p.grad.double().flatten() for p in module.parameters() if p.grad is not None])
    expected = torch.cat([p.grad.flatten() for p in reference.parameters() if p.grad is not None])
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > (0.999999 if name == "fp32" else 0.95)


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
    monkeypatch.setattr(precision.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=returncode, stdout="0.3"))
    chosen = precision.choose("auto", CPU, torch.channels_last, torch.nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4))
    assert chosen.name == "fp32"
    assert "training goes on in fp32" in caplog.text


def test_measuring_leaves_the_model_as_it_was() -> None:
    model = SeEM(3, (1, 2), width=2).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    precision._seconds(model, torch.randn(2, 3, 8, 8), Precision("fp32", CPU))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
