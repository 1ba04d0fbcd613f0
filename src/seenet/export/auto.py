"""Choose the runtime and precision of `seenet predict`.

They are asked for, remembered, or tried amid the job where that saves more than it costs.
"""

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from seenet.core import processor
from seenet.core.errors import DataError, SeenetError, UsageError
from seenet.core.files import find_model
from seenet.core.images import image_size, read_image
from seenet.export import bundle_cache
from seenet.export.fastest import PICTURES, PLAIN, ROUNDS, Speeds, Way, open_way, ticking
from seenet.prediction.base import BasePredictor
from seenet.prediction.bundle import FORMATS
from seenet.prediction.formats import BUNDLE_FORMATS
from seenet.prediction.inputs import Input, find_inputs
from seenet.prediction.loading import load
from seenet.prediction.manifest import begun_with
from seenet.prediction.tiles import MARGIN, MEMORY, TileSize

log = logging.getLogger("seenet")

Precision = Literal["auto", "fp32", "bf16"]
Runtime = Literal["auto", "eager", "onnx", "openvino"]

WAYS: tuple[Way, ...] = (PLAIN, ("onnx", "fp32"), ("openvino", "fp32"), ("eager", "bf16"), ("openvino", "bf16"))
"""The first that is left is what a job is begun with."""
_ONNX = (*BUNDLE_FORMATS["onnx"].written_with, *BUNDLE_FORMATS["onnx"].runs_with)
PACKAGES = {"onnx": _ONNX, "openvino": (*_ONNX, *BUNDLE_FORMATS["openvino"].runs_with)}
"""OpenVINO gets its network by way of a bundle for ONNX."""
SPEEDUP = 1.3
"""Expected of the fastest of others: less than it brought wherever it was measured."""
AGAIN = 20
"""Times the first pictures' pixels that have to be left for them to be done again where only their time is wanted."""
WORTH = 4
"""Others are tried where they are expected to save so many times what trying costs: where they bring nothing, a job took 6 % longer."""


@dataclass(frozen=True)
class Choice:
    """Runtime and precision of a job, and why."""

    runtime: str
    precision: str
    why: str
    candidates: list[dict[str, Any]] = field(default_factory=list)
    """What is known of each that was tried: runtime, precision, and either seconds a picture, speed (plain fp32's is 1) and the share of
    equal classes, or what failed."""
    forecast: dict[str, float] = field(default_factory=dict)
    """Where trying was weighed: seconds that were `left`, that others were expected to be `saving`, and that trying them was to `cost`."""


class Chosen:
    """The predictor of a job, and what may replace it while the job runs (a `prediction.batch.Chooser`).

    `asked` are runtime and precision, `auto` where they are left open; `left` the ways that are then there. With `speeds` those of which
    nothing is known are tried after the first pictures, where that pays. `pixels` are those of each picture, also of what is done: so a job
    that was killed and is run again has the same first ones.
    """

    def __init__(
        self,
        predictor: BasePredictor,
        choice: Choice,
        asked: tuple[str, str],
        left: Sequence[Way] = (),
        speeds: Speeds | None = None,
        pixels: Mapping[Input, int] | None = None,
    ) -> None:
        self.predictor, self.choice = predictor, choice
        self._asked, self._left, self._speeds, self._pixels = asked, left, speeds, pixels or {}
        self._first = typical(self._pixels)
        self._took: list[tuple[Input, float]] = []
        self._rest = 0

    def accepts(self, way: tuple[str, str]) -> bool:
        """What any way made that may be chosen, here or on another machine, stays; a runtime that was asked for is that of this version."""
        runtime, precision = self._asked
        here = self.predictor.settings.get("runtime", "eager")
        return (runtime == "auto" or way[0] == here) and precision in ("auto", way[1])

    def begin(self, todo: list[Input]) -> list[Input]:
        """Pictures that stand for the others first."""
        if self._speeds is None:
            return todo
        rest = [item for item in todo if item not in self._first]
        self._rest = sum(self._pixels.get(item, 0) for item in rest)
        return [*(item for item in self._first if item in todo), *rest]

    def predictor_for(self, item: Input) -> BasePredictor:
        """Chosen anew when the first of the others comes."""
        if self._speeds is not None and item not in self._first:
            if len(self._took) < 2 and self._rest > AGAIN * sum(self._pixels[one] for one in self._first):
                self._took += self._timed()
            if len(self._took) > 1:
                self._choose(self._speeds)
            self._speeds = None
        return self.predictor

    def done(self, item: Input, seconds: float) -> None:
        """Remember how long the first pictures took."""
        if self._speeds is not None:
            self._took.append((item, seconds))

    def _timed(self) -> list[tuple[Input, float]]:
        """As `done` hears it, of first pictures that were done before this run: it was killed before it had chosen."""
        found = []
        for item in self._first[:2]:
            with suppress(DataError, OSError):
                image = read_image(item.path)
                began = time.monotonic()
                self.predictor.mask(image)
                found.append((item, time.monotonic() - began))
        return found

    def _choose(self, speeds: Speeds) -> None:
        now: Way = (self.choice.runtime, self.choice.precision)
        # The first one's has in it what is made once.
        pace = min(seconds / self._pixels[item] for item, seconds in self._took[1:])
        left = pace * self._rest
        saving = left * (1 - 1 / SPEEDUP)
        rounds = saving / WORTH / 2
        untried = [way for way in self._left if way != now and way not in speeds.known]
        if not untried:
            return
        pictures = list(dict.fromkeys(item for item, _ in self._took))
        if (1 + len(untried)) * (1 + ROUNDS) * pace * sum(self._pixels[item] for item in pictures) > rounds:
            pictures = pictures[:1]
        once = pace * sum(self._pixels[item] for item in pictures)
        costs = []
        # All of them, or those alone that need no export.
        for ways in filter(None, (untried, [way for way in untried if speeds.is_ready(way)])):
            costs.append(speeds.forecast(ways, once))
            if saving >= WORTH * costs[-1]:
                log.info("trying %s: some %.0f s, %.0f s are left", ", ".join(map(" ".join, ways)), costs[-1], left)
                paths = [item.path for item in pictures]
                self._try(speeds, ways, paths, seconds=costs[-1], rounds=rounds, exports=saving / 2)
                why = "; ".join([_speed(speeds, (self.choice.runtime, self.choice.precision)), *_failed(speeds)])
                break
        else:
            why = f"{left:.0f} s are left, of which others would save some {saving:.0f} and take {costs[-1]:.0f} to be tried"
        forecast = {"left": round(left, 1), "saving": round(saving, 1), "cost": round(costs[-1], 1)}
        self.choice = replace(self.choice, why=why, candidates=speeds.candidates(self._left), forecast=forecast)
        log.info("runtime %s, precision %s: %s", self.choice.runtime, self.choice.precision, why)

    def _try(self, speeds: Speeds, ways: Sequence[Way], pictures: Sequence[Path], **limits: float) -> None:
        opened = {(self.choice.runtime, self.choice.precision): self.predictor}
        try:
            speeds.attempt(ways, opened, pictures, **limits)
        except (SeenetError, OSError, MemoryError, RuntimeError) as error:
            log.warning("others cannot be tried: %s", error)
        best = speeds.best(self._left)
        if best in opened:
            self.predictor = opened[best]
            self.choice = replace(self.choice, runtime=best[0], precision=best[1])


def typical(pixels: Mapping[Input, int]) -> list[Input]:
    """At most `PICTURES`: the one with which half of all pixels are reached, by size, then its neighbours."""
    known = sorted((item for item in pixels if pixels[item] and not item.windows), key=lambda item: pixels[item])
    place = _half([pixels[item] for item in known])
    begin = max(0, min(place - PICTURES // 2, len(known) - PICTURES))
    near = range(begin, min(begin + PICTURES, len(known)))
    return [known[index] for index in sorted(near, key=lambda index: index != place)]


def _half(sizes: Sequence[int]) -> int:
    """Where the sum of ascending sizes reaches its half."""
    return int(np.searchsorted(np.cumsum(sizes), sum(sizes) / 2))


def _speed(speeds: Speeds, way: Way) -> str:
    speed = speeds.known.get(way, {}).get("speed", 1.0)
    return "nothing that answers alike is faster here" if way == PLAIN else f"{speed:.2f} times as fast as plain fp32 where it was tried"


def _failed(speeds: Speeds) -> list[str]:
    """List the ways to be tried another time, each reason once."""
    reasons: dict[str, list[str]] = {}
    for way, found in speeds.passing.items():
        reasons.setdefault(found["failed"], []).append(" ".join(way))
    return [f"{', '.join(ways)} failed for now: {reason}" for reason, ways in reasons.items()]


def open_chosen(
    model: str | Path,
    inputs: Sequence[str | Path],
    out: Path,
    *,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    device: str = "auto",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    tile: TileSize = "whole",
    margin: int = MARGIN,
    memory: float = MEMORY,
    factory: str | None = None,
) -> Chosen:
    """The predictor to begin with, in the runtime and precision asked for; of those left open the fastest that is known to answer as plain
    fp32, or one that `out` was begun with, else the first.

    Raises UsageError: what is asked for is not available here (what is, is listed); DataError: as `load`, or a bundle that was asked for
    cannot be made.
    """
    path = find_model(model)
    options: dict[str, Any] = {"scales": scales, "flip": flip, "tile": tile, "margin": margin, "memory": memory}
    if path.suffix in FORMATS:
        kind = FORMATS[path.suffix]
        if runtime not in ("auto", kind):
            raise UsageError(f"--runtime {runtime}: {path.name} is exported for {kind}; leave it out, or give the model that it came from")
        predictor = load(path, device, "fp32" if precision == "auto" else precision, factory=factory, **options)
        return Chosen(predictor, Choice(kind, predictor.precision, "the model is exported for it"), (kind, predictor.precision))
    options |= {"device": device, "factory": factory}
    other = _other_device(device)
    ways, missing = _available(other, scales, factory)
    left = [way for way in ways if runtime in ("auto", way[0]) and precision in ("auto", way[1])]
    if not left:
        here = ", ".join(map(" ".join, ways))
        reason = next((why for way, why in missing.items() if runtime in ("auto", way[0]) and precision in ("auto", way[1])), "")
        raise UsageError(f"--runtime {runtime} --precision {precision}: {reason or 'there is no such pair'}; available here: {here}")
    items = find_inputs(inputs, out)
    way, speeds, pixels = left[0], None, {}
    if len(left) == 1:
        absent = next((why for way, why in missing.items() if runtime == "auto" and way[0] != "eager"), "")
        why = f"nothing else is available here: {absent}" if absent else "asked for"
    elif int(os.environ.get("WORLD_SIZE") or 1) > 1:
        why = "processes that share the pictures try nothing, so that all take the same"
    else:
        pixels = _pixels(items)
        sizes = sorted(filter(None, pixels.values())) or [1]
        speeds = Speeds(path, sizes[_half(sizes)], other or processor.name(), options)
        way, why, settled = _known(speeds, left, out)
        speeds = None if settled else speeds
    # What is read by windows is too large to try anything on.
    pictures = [item.path for item in items if not item.windows]
    exports = bundle_cache.forecast(path, {way[0]} - {"eager"})
    with ticking(f"exporting to {way[0]}", exports) if exports else nullcontext():
        predictor = open_way(path, way, pictures, **options)
    return Chosen(predictor, Choice(*way, why, speeds.candidates(left) if speeds else []), (runtime, precision), left, speeds, pixels)


def _known(speeds: Speeds, left: Sequence[Way], out: Path) -> tuple[Way, str, bool]:
    """Return the way to begin with, why, and whether that settles it."""
    best = speeds.best(left)
    if best and all(way in speeds.known for way in left):
        return best, _speed(speeds, best), True
    # Begun with others than what everything is begun with: these had been chosen. A bundle that has gone since is no reason to make it.
    begun = [way for way in map(_way, begun_with(out, speeds.key["model"])) if way in left and way != left[0] and speeds.is_ready(way)]
    if begun:
        return begun[-1], f"{out} was begun with it", True
    return best or left[0], f"others are tried after {PICTURES} pictures, where that saves more than it costs", False


def _pixels(items: Sequence[Input]) -> dict[Input, int]:
    """Of each picture, from its header; 0 where that cannot be read."""

    def count(item: Input) -> int:
        try:
            height, width = image_size(item.path)
        except (DataError, OSError):
            return 0
        return height * width

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(items, pool.map(count, items), strict=True))


def _way(begun: tuple[str, str]) -> Way:
    """Of a manifest's words, where the runtime has its version."""
    name = begun[0].split()[0]
    return {"onnxruntime": "onnx"}.get(name, name), begun[1]


def _available(other: str, scales: Sequence[float], factory: str | None) -> tuple[list[Way], dict[Way, str]]:
    """Ways that this machine has, plain fp32 first, and why it has not the others."""
    missing = {}
    for way in WAYS:
        runtime, precision = way
        absent = [name for name in PACKAGES.get(runtime, ()) if find_spec(name) is None]
        if absent:
            missing[way] = f"{absent[0]} is not installed: pip install 'seenet[export]'"
        elif runtime != "eager" and other:
            missing[way] = f"exported models run on the cpu, not on {other}"
        elif runtime != "eager" and factory:
            missing[way] = "a network of --factory is not exported unasked"
        elif runtime != "eager" and tuple(scales) != (1.0,):
            missing[way] = "exported models take scale 1 alone"
        elif precision == "bf16" and not other and not processor.has_bf16():
            missing[way] = f"this processor, {processor.name()}, has no bf16"
    return [way for way in WAYS if way not in missing], missing


def _other_device(device: str) -> str:
    """Name of the accelerator that `device` means, empty for the CPU; torch is asked only where there may be one."""
    maybe = not sys.platform.startswith("linux") or any(Path("/dev", name).exists() for name in ("nvidiactl", "kfd", "dxg"))
    if device == "cpu" or (device == "auto" and not maybe):
        return ""
    from seenet.core.device import choose_device

    found = choose_device(device)
    if found.type == "cuda":
        import torch

        return torch.cuda.get_device_name(found)
    return "" if found.type == "cpu" else str(found)
