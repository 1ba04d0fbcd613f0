"""Choose the runtime and precision of `seenet predict`.

They are given, known from an earlier job, or measured during the job if that saves more than it
costs.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from seenet.core import processor
from seenet.core.errors import DataError, SeenetError, UsageError
from seenet.core.files import find_model
from seenet.core.picture_reader import PictureReader
from seenet.export import bundle_cache
from seenet.export.backends import (
    BACKENDS,
    PLAIN,
    Backend,
    accelerator_name,
    missing_backends,
    open_backend,
)
from seenet.export.fastest import PICTURES, ROUNDS, Speeds, ticking
from seenet.prediction.base import BasePredictor
from seenet.prediction.bundles.bundle import FORMATS, is_bundle
from seenet.prediction.loading import PredictOptions, open_predictor
from seenet.prediction.manifest import VersionedBackend, recorded_backends
from seenet.prediction.pictures import Input, find_inputs

log = logging.getLogger("seenet")

Precision = Literal["auto", "fp32", "bf16"]
Runtime = Literal["auto", "eager", "onnx", "openvino"]

SPEEDUP = 1.3
"""Expected of the fastest other backend: less than was measured anywhere."""
RETIMED = 20
"""The first pictures, if an earlier run did them, are run again for their time only where so many
times their pixels remain.
"""
WORTH = 4
"""Other backends are tried if they are expected to save so many times the cost of the trial. A job
in which they brought nothing took 6 % longer.
"""


@dataclass(frozen=True)
class Choice:
    """Runtime and precision of a job, and why."""

    runtime: str
    precision: str
    why: str
    candidates: list[dict[str, Any]] = field(default_factory=list)
    """Results of each backend that was tried: runtime, precision, and either seconds a picture,
    speed (plain fp32 has 1) and share of equal classes, or the reason of its failure.
    """
    forecast: dict[str, float] = field(default_factory=dict)
    """Seconds that were weighed for a trial: `left` in the job, expected `saving`, and `cost`."""


class Chosen:
    """Predictor of a job, which may be replaced while it runs (a `prediction.batch.Chooser`).

    Args:
        predictor: The predictor to begin with.
        choice: Its runtime and precision, and why.
        asked: Runtime and precision that the user asked for, or `auto`.
        allowed: Available backends that match `asked`.
        speeds: Known speeds; if given, the backends without one are tried after the first pictures,
            where that pays.
        pixels: Pixels of each picture, also of those that are done: a job that was killed has the
            same first pictures when it is run again.
    """

    def __init__(
        self,
        predictor: BasePredictor,
        choice: Choice,
        asked: tuple[str, str],
        allowed: Sequence[Backend] = (),
        speeds: Speeds | None = None,
        pixels: Mapping[Input, int] | None = None,
    ) -> None:
        self.predictor, self.choice = predictor, choice
        self._asked, self._allowed, self._speeds = asked, allowed, speeds
        self._pixels = pixels or {}
        self._first = typical(self._pixels)
        self._timings: list[tuple[Input, float]] = []
        self._remaining_pixels = 0

    def accepts(self, backend: VersionedBackend) -> bool:
        """Keep the outputs of any backend that may be chosen, here or on another machine.

        If a runtime was asked for, it must have the version that is installed here.
        """
        runtime, precision = self._asked
        installed = self.predictor.settings.get("runtime", "eager")
        return (runtime == "auto" or backend[0] == installed) and precision in ("auto", backend[1])

    def begin(self, todo: list[Input]) -> list[Input]:
        """Put the typical pictures first."""
        if self._speeds is None:
            return todo
        rest = [item for item in todo if item not in self._first]
        self._remaining_pixels = sum(self._pixels.get(item, 0) for item in rest)
        return [*(item for item in self._first if item in todo), *rest]

    def predictor_for(self, item: Input) -> BasePredictor:
        """Return the predictor, chosen anew at the first picture after the typical ones."""
        if self._speeds is not None and item not in self._first:
            if len(self._timings) < 2 and self._remaining_pixels > RETIMED * sum(
                self._pixels[one] for one in self._first
            ):
                self._time_first_pictures()
            if len(self._timings) > 1:
                self._choose(self._speeds)
            self._speeds = None
        return self.predictor

    def done(self, item: Input, seconds: float) -> None:
        """Remember how long the first pictures took."""
        if self._speeds is not None:
            self._timings.append((item, seconds))

    def _time_first_pictures(self) -> None:
        """Time pictures of an earlier run, which was killed before it chose."""
        for item in self._first[:2]:
            with suppress(DataError, OSError):
                image = self.predictor.reader(item.path)
                began = time.monotonic()
                self.predictor.mask(image)
                self._timings.append((item, time.monotonic() - began))

    def _choose(self, speeds: Speeds) -> None:
        """Try other backends if that is expected to pay, and go on with the fastest."""
        current = (self.choice.runtime, self.choice.precision)
        untried = [
            backend
            for backend in self._allowed
            if backend != current and backend not in speeds.known
        ]
        if not untried:
            return
        # The first picture's time includes work that is done once.
        pace = min(seconds / self._pixels[item] for item, seconds in self._timings[1:])
        left = pace * self._remaining_pixels
        saving = left * (1 - 1 / SPEEDUP)
        rounds = saving / WORTH / 2
        pictures = list(dict.fromkeys(item for item, _ in self._timings))
        once = pace * sum(self._pixels[item] for item in pictures)
        if (1 + len(untried)) * (1 + ROUNDS) * once > rounds:
            pictures = pictures[:1]
            once = pace * self._pixels[pictures[0]]
        # All of them, or else those that need no export.
        for backends in filter(None, (untried, [one for one in untried if speeds.is_ready(one)])):
            cost = speeds.forecast(backends, once)
            if saving >= WORTH * cost:
                log.info(
                    "trying %s: about %.0f s, %.0f s are left",
                    ", ".join(map(" ".join, backends)),
                    cost,
                    left,
                )
                paths = [item.path for item in pictures]
                self._try(speeds, backends, paths, seconds=cost, rounds=rounds, exports=saving / 2)
                current = (self.choice.runtime, self.choice.precision)
                why = "; ".join([_speed(speeds, current), *_passing_failures(speeds)])
                break
        else:
            why = (
                f"{left:.0f} s are left, of which other backends would save about {saving:.0f} and "
                f"take {cost:.0f} to be tried"
            )
        forecast = {"left": round(left, 1), "saving": round(saving, 1), "cost": round(cost, 1)}
        self.choice = replace(
            self.choice, why=why, candidates=speeds.candidates(self._allowed), forecast=forecast
        )
        log.info("runtime %s, precision %s: %s", self.choice.runtime, self.choice.precision, why)

    def _try(
        self, speeds: Speeds, backends: Sequence[Backend], pictures: Sequence[Path], **limits: float
    ) -> None:
        opened = {(self.choice.runtime, self.choice.precision): self.predictor}
        try:
            speeds.attempt(backends, opened, pictures, **limits)
        except (SeenetError, OSError, MemoryError, RuntimeError) as error:
            log.warning("other backends cannot be tried: %s", error)
        best = speeds.best(self._allowed)
        if best in opened:
            self.predictor = opened[best]
            self.choice = replace(self.choice, runtime=best[0], precision=best[1])


def typical(pixels: Mapping[Input, int]) -> list[Input]:
    """Return up to `PICTURES` typical pictures, the most typical one first.

    Sorted by size, the pictures up to that one hold half of all pixels; the others are its
    neighbours.
    """
    known = sorted(
        (item for item in pixels if pixels[item] and not item.windows),
        key=lambda item: pixels[item],
    )
    middle = _half([pixels[item] for item in known])
    begin = max(0, min(middle - PICTURES // 2, len(known) - PICTURES))
    near = range(begin, min(begin + PICTURES, len(known)))
    return [known[index] for index in sorted(near, key=lambda index: index != middle)]


def _half(sizes: Sequence[int]) -> int:
    """Return the index at which the sum of ascending sizes reaches its half."""
    return int(np.searchsorted(np.cumsum(sizes), sum(sizes) / 2))


def _speed(speeds: Speeds, backend: Backend) -> str:
    if backend == PLAIN:
        return "no other backend with the same answers is faster here"
    speed = speeds.known.get(backend, {}).get("speed", 1.0)
    return f"{speed:.2f} times as fast as plain fp32 where it was tried"


def _passing_failures(speeds: Speeds) -> list[str]:
    """Describe the failures that will be tried again, each reason once."""
    reasons: dict[str, list[str]] = {}
    for backend, result in speeds.passing.items():
        reasons.setdefault(result["failed"], []).append(" ".join(backend))
    return [f"{', '.join(names)} failed for now: {reason}" for reason, names in reasons.items()]


def open_chosen(
    model: str | Path,
    inputs: Sequence[str | Path],
    out: Path,
    *,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    **options: Any,
) -> Chosen:
    """Open the predictor that a job begins with, in the runtime and precision asked for.

    Among those left open it is the fastest that is known to answer as plain fp32, or the one that
    `out` was begun with, or else the first of `BACKENDS`.

    Args:
        model: Run folder, model file or bundled name.
        inputs: Files, folders and patterns.
        out: Folder of the outputs.
        runtime, precision: What to compute with; auto: the fastest.
        options: The other fields of `PredictOptions`.

    Raises:
        UsageError: Runtime or precision is not available here; the message lists what is.
        DataError: As `load`, or a bundle that was asked for cannot be made.
    """
    path, plain = find_model(model), PredictOptions(**options)
    if is_bundle(path):
        kind = FORMATS[path.suffix]
        if runtime not in ("auto", kind):
            raise UsageError(
                f"--runtime {runtime}: {path.name} is exported for {kind}; leave it out, or give "
                "the model that it came from"
            )
        if precision != "auto":
            plain = replace(plain, precision=precision)
        predictor = open_predictor(path, plain)
        choice = Choice(kind, predictor.precision, "the model is exported for it")
        return Chosen(predictor, choice, (kind, predictor.precision))

    def matches(backend: Backend) -> bool:
        return runtime in ("auto", backend[0]) and precision in ("auto", backend[1])

    accelerator = accelerator_name(plain.device)
    missing = missing_backends(accelerator, plain)
    available = [backend for backend in BACKENDS if backend not in missing]
    allowed = list(filter(matches, available))
    if not allowed:
        reasons = (why for backend, why in missing.items() if matches(backend))
        raise UsageError(
            f"--runtime {runtime} --precision {precision}: "
            f"{next(reasons, 'there is no such pair')}; available here: "
            f"{', '.join(map(' '.join, available))}"
        )
    reader = PictureReader.of_model(path)
    items = find_inputs(inputs, out, reader)
    backend, speeds, pixels = allowed[0], None, {}
    if len(allowed) == 1:
        lacking = [why for one, why in missing.items() if runtime == "auto" and one[0] != "eager"]
        why = f"nothing else is available here: {lacking[0]}" if lacking else "asked for"
    elif int(os.environ.get("WORLD_SIZE") or 1) > 1:
        why = "processes that share the pictures try nothing, so that all use the same"
    else:
        pixels = _pixels(items, reader)
        sizes = sorted(filter(None, pixels.values())) or [1]
        speeds = Speeds(path, sizes[_half(sizes)], accelerator or processor.name(), plain)
        backend, why, final = _known(speeds, allowed, out)
        speeds = None if final else speeds
    # Pictures that are read by windows are too large to verify an export on.
    pictures = [item.path for item in items if not item.windows]
    exports = bundle_cache.forecast(path, {backend[0]} - {"eager"})
    with ticking(f"exporting to {backend[0]}", exports) if exports else nullcontext():
        predictor = open_backend(path, backend, pictures, plain)
    choice = Choice(*backend, why, speeds.candidates(allowed) if speeds else [])
    return Chosen(predictor, choice, (runtime, precision), allowed, speeds, pixels)


def _known(speeds: Speeds, allowed: Sequence[Backend], out: Path) -> tuple[Backend, str, bool]:
    """Return the backend to begin with, why, and whether the choice is final."""
    best = speeds.best(allowed)
    if best and all(backend in speeds.known for backend in allowed):
        return best, _speed(speeds, best), True
    # Outputs of another backend than the first one: it was chosen for this folder. It is not
    # exported again for that.
    recorded = map(_without_version, recorded_backends(out, speeds.key["model"]))
    chosen = [one for one in recorded if one in allowed[1:] and speeds.is_ready(one)]
    if chosen:
        return chosen[-1], f"{out} was begun with it", True
    why = f"others are tried after {PICTURES} pictures, where that saves more than it costs"
    return best or allowed[0], why, False


def _pixels(items: Sequence[Input], reader: PictureReader) -> dict[Input, int]:
    """Return the pixels of each picture by its header; 0 where that cannot be read."""

    def count(item: Input) -> int:
        try:
            height, width = reader.size(item.path)
        except (DataError, OSError):
            return 0
        return height * width

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(items, pool.map(count, items), strict=True))


def _without_version(backend: VersionedBackend) -> Backend:
    name = backend[0].split()[0]
    return {"onnxruntime": "onnx"}.get(name, name), backend[1]
