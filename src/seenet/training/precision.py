"""Number formats: autocast, loss scale, and a check of the gradients on this processor."""

import copy
import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import product
from typing import Literal, cast

import torch
from torch import Tensor, nn

from seenet.core.child import run_module
from seenet.core.errors import NotFiniteError
from seenet.model import Segmenter
from seenet.model.fast import use_fast
from seenet.model.seenet import SeEM, SeEMFS

log = logging.getLogger("seenet")

Name = Literal["fp32", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Number formats of autocast."""
LEAST_COSINE = 0.95
CHECK_SECONDS = 300
RATES = (1, 4, 7, 13)
"""Rates of the checked modules.

Some processors compute wrong weight gradients of depthwise convolutions from a rate of 2 on.
"""


class Precision:
    """Autocast to a number format; for fp16 with a loss scale that falls at each overflow."""

    def __init__(self, name: Name, device: torch.device) -> None:
        self.name, self.device = name, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass."""
        dtype = DTYPES.get(self.name)
        return torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    def check_scale(self) -> None:
        """Raise NotFiniteError if the loss scale fell below 1: a lower one would not help."""
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1:
            raise NotFiniteError(
                f"loss scale {self.scaler.get_scale():.3g}: gradients overflow at any scale; "
                "train in bf16 or fp32, or lower optimizer.rate"
            )


def is_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all numbers are finite, by their maximum norm."""
    some = [tensor.detach() for tensor in tensors if tensor.numel()]
    return not some or bool(torch.isfinite(nn.utils.get_total_norm(some, math.inf)))


def running_statistics(model: nn.Module) -> Iterator[Tensor]:
    """Yield the running means and variances of all batch norms."""
    for name, value in model.named_buffers():
        if name.rpartition(".")[2].startswith("running_"):
            yield value


def gradient_cosine(name: Name, device: torch.device, memory_format: torch.memory_format) -> float:
    """Compare gradients in `name` with those in float32, on a small input.

    They are the gradients of a SeEM and a SeEM-FS, in the plain and the faster forms.

    Returns:
        The cosine similarity of all gradients together; NaN if one is not finite.
    """
    generator = torch.Generator().manual_seed(0)
    images, found, expected = torch.randn(2, 16, 32, 32, generator=generator), [], []
    for kind, fast in product((SeEM, SeEMFS), (False, True) if device.type == "cpu" else (False,)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = kind(16, RATES, width=16).to(device).to(memory_format=memory_format)
        if fast:
            use_fast(module)
        expected.append(_gradients(module, images, Precision("fp32", device), memory_format))
        found.append(_gradients(module, images, Precision(name, device), memory_format))
    cosine = nn.functional.cosine_similarity(torch.cat(found), torch.cat(expected), dim=0)
    return float(cosine)


def _gradients(
    module: nn.Module, images: Tensor, precision: Precision, memory_format: torch.memory_format
) -> Tensor:
    module.zero_grad()
    with precision.autocast():
        out = module(images.to(precision.device, memory_format=memory_format))
    # The gradient of a plain sum vanishes behind batch norm; that of a sum with random signs not.
    signs = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).sign()
    (out.float() * signs.to(precision.device)).mean().backward()
    return torch.cat(
        [
            parameter.grad.double().flatten()
            for parameter in module.parameters()
            if parameter.grad is not None
        ]
    ).cpu()


def is_trustworthy(name: Name, device: torch.device, memory_format: torch.memory_format) -> bool:
    """Return whether gradients in `name` can be trusted on this device; log why they cannot.

    A processor is checked in a child process: a faulty kernel may crash the check.
    """
    if device.type != "cpu" or name == "fp32":
        return True
    layout = str(memory_format).removeprefix("torch.")
    try:
        ended = run_module("seenet.training.precision", name, layout, timeout=CHECK_SECONDS)
        if ended.code == 0 and float(ended.output) >= LEAST_COSINE:
            return True
        cosine = f"cosine {ended.output.strip()}"
        found = f"the check ended with {ended.how}" if ended.code else cosine
    except TimeoutError as error:
        found = str(error)
    message = (
        "precision %s (%s): gradients are not trusted on this processor: %s, "
        "expected a cosine with fp32 of at least %.2f"
    )
    log.warning(message, name, layout, found, LEAST_COSINE)
    return False


def choose(
    setting: Literal["fp32", "bf16", "fp16", "auto"],
    device: torch.device,
    memory_format: torch.memory_format,
    model: Segmenter,
    images: Tensor,
) -> Precision:
    """Choose the precision of `setting` if it can be trusted, else fp32; `auto`: bf16 if faster."""
    asked: Name = "bf16" if setting == "auto" else setting
    if not is_trustworthy(asked, device, memory_format):
        log.warning("precision: training continues in fp32")
        return Precision("fp32", device)
    if setting != "auto":
        return Precision(asked, device)
    seconds = {
        name: _seconds_a_pass(model, images, Precision(name, device)) for name in ("fp32", "bf16")
    }
    chosen: Name = "bf16" if seconds["bf16"] < 0.95 * seconds["fp32"] else "fp32"
    message = "precision: %s (a pass takes %.2f s in fp32, %.2f s in bf16)"
    log.info(message, chosen, seconds["fp32"], seconds["bf16"])
    return Precision(chosen, device)


def _seconds_a_pass(model: Segmenter, images: Tensor, precision: Precision) -> float:
    """Return the time of the faster of two forward and backward passes, after a warm-up."""
    # Batch norm would change the statistics of the model itself.
    model, times = copy.deepcopy(model), []
    for _ in range(3):
        started = time.perf_counter()
        with precision.autocast():
            out = model(images, own_grid=True)
        out.float().mean().backward()
        if precision.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def main() -> None:
    """Print the cosine, as in `python -m seenet.training.precision bf16 channels_last`."""
    name, layout = sys.argv[1:]
    print(gradient_cosine(cast(Name, name), torch.device("cpu"), getattr(torch, layout)))


if __name__ == "__main__":
    main()
