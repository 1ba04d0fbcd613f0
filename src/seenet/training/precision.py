"""Number formats: what runs under autocast, when the loss is scaled, and whether this processor can be trusted with it."""

import logging
import sys
import time
from contextlib import AbstractContextManager
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from seenet.core.child import run_module
from seenet.core.errors import NotFiniteError
from seenet.model import Segmenter
from seenet.model.fast import use_fast
from seenet.model.seenet import SeEM, SeEMFS
from seenet.training.recompute import recomputed_norms

log = logging.getLogger("seenet")

Name = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_COSINE = 0.95
CHECK_SECONDS = 300
LAYOUTS = {torch.contiguous_format: "contiguous", torch.channels_last: "channels-last"}
RATES = (1, 4, 7, 13)
"""Rates of the checked modules: some processors compute wrong weight gradients of depthwise convolutions from a rate of 2 on."""


class Precision:
    """Autocast to `name`, and for fp16 a loss scale that falls at each overflow and grows again."""

    def __init__(self, name: Name, device: torch.device) -> None:
        self.name, self.device = name, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        dtype = DTYPES[self.name]
        return torch.autocast(self.device.type, dtype if self.name != "fp32" else torch.bfloat16, enabled=self.name != "fp32")

    def check_scale(self) -> None:
        """NotFiniteError where the scale fell under 1: nothing is left to lower."""
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1:
            raise NotFiniteError(
                f"loss scale {self.scaler.get_scale():.3g}: gradients overflow at any scale; train in bf16 or fp32, or lower optimizer.rate"
            )


def gradient_cosine(name: Name, device: torch.device, memory_format: torch.memory_format) -> float:
    """Return the cosine between gradients in `name` and in float32, on a small input; NaN where one is not finite.

    Of one SeEM and one SeEM-FS, plain and in the faster forms, of which training takes either.
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
    a, b = torch.cat(found), torch.cat(expected)
    return float(nn.functional.cosine_similarity(a, b, dim=0)) if torch.isfinite(a).all() else float("nan")


def _gradients(module: nn.Module, images: Tensor, precision: Precision, memory_format: torch.memory_format) -> Tensor:
    module.zero_grad()
    with precision.autocast():
        out = module(images.to(precision.device, memory_format=memory_format))
    # A sum alone would vanish behind batch norm; the signs of a fixed draw do not.
    signs = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).sign().to(precision.device)
    (out.float() * signs).mean().backward()
    return torch.cat([parameter.grad.double().flatten() for parameter in module.parameters() if parameter.grad is not None]).cpu()


def is_trustworthy(name: Name, device: torch.device, memory_format: torch.memory_format) -> bool:
    """Whether training in `name` may be believed on this device; a processor is asked, and the answer logged where it is no.

    Asked in a child process: where a kernel writes past its memory, the check may crash as well as answer wrongly.
    """
    if device.type != "cpu" or name == "fp32":
        return True
    layout = LAYOUTS[memory_format]
    try:
        ended = run_module("seenet.training.precision", name, layout, timeout=CHECK_SECONDS)
    except TimeoutError:
        log.warning("precision %s: the gradient check took over %d s on this processor; not trusted", name, CHECK_SECONDS)
        return False
    if ended.code == 0 and float(ended.output) >= LEAST_COSINE:
        return True
    found = f"not at all (the check ended with {ended.how})" if ended.code else f"only to a cosine of {ended.output.strip()}"
    log.warning("precision %s: gradients on this processor (%s) agree with fp32 %s, expected %.2f", name, layout, found, LEAST_COSINE)
    return False


def choose(
    setting: Literal["fp32", "bf16", "fp16", "auto"],
    device: torch.device,
    memory_format: torch.memory_format,
    model: Segmenter,
    images: Tensor,
) -> Precision:
    """The precision to train in: what was asked where it can be trusted, else fp32; `auto` takes bf16 where that is also faster."""
    asked: Name = "bf16" if setting == "auto" else setting
    if not is_trustworthy(asked, device, memory_format):
        log.warning("precision: training goes on in fp32")
        return Precision("fp32", device)
    if setting != "auto":
        return Precision(asked, device)
    seconds = {name: _seconds(model, images, Precision(name, device)) for name in ("fp32", "bf16")}
    chosen: Name = "bf16" if seconds["bf16"] < 0.95 * seconds["fp32"] else "fp32"
    log.info("precision: %s (a pass takes %.2f s in fp32, %.2f s in bf16)", chosen, seconds["fp32"], seconds["bf16"])
    return Precision(chosen, device)


def _seconds(model: Segmenter, images: Tensor, precision: Precision) -> float:
    """The faster of two passes as training takes them, forward and backward, after a warm-up; leaves weights, statistics and gradients as
    they were.
    """
    before = {key: value.clone() for key, value in model.state_dict().items()}
    times = []
    for _ in range(3):
        started = time.perf_counter()
        with precision.autocast(), recomputed_norms(model):
            out = model(images, own_grid=True)
        out.float().mean().backward()
        if precision.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    model.zero_grad()
    model.load_state_dict(before)
    return min(times[1:])


def main() -> None:
    """`python -m seenet.training.precision bf16 channels-last` prints the cosine of the gradients."""
    name, layout = sys.argv[1:]
    formats = {text: memory_format for memory_format, text in LAYOUTS.items()}
    names: dict[str, Name] = {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16"}
    print(gradient_cosine(names[name], torch.device("cpu"), formats[layout]))


if __name__ == "__main__":
    main()
