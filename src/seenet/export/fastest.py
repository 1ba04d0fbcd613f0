"""The speed of each backend that answers as plain fp32, measured once a machine and remembered."""

import json
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import seenet
from seenet.core import processor
from seenet.core.errors import CheckError
from seenet.core.files import cache_folder, digest, write_text
from seenet.core.picture_reader import PictureReader
from seenet.core.progress import bar
from seenet.export import bundle_cache
from seenet.export.backends import PLAIN, Backend, open_backend
from seenet.prediction.base import BasePredictor
from seenet.prediction.loading import PredictOptions

PICTURES = 3
"""Pictures on which backends are compared and timed."""
ROUNDS = 3
SLOW = 1.5
"""A backend that takes so many times as long as the fastest is not run again."""
GAIN = 1.05
"""Least speed-up of another backend: less may be chance, and is not worth masks of two backends."""
OPENING_SECONDS = 3.0
"""Time to load a backend, first in a child process."""
AGREEMENT = {"fp32": 0.9999, "bf16": 0.999}
"""Share of the pixels that must have the same class as with plain fp32, by precision."""


class Speeds:
    """Known speeds of a model's backends on pictures of some size, kept in the cache.

    A backend has either {"seconds" a picture, "speed" as a multiple of plain fp32's, "equal": share
    of the pixels} or {"failed": why}.

    Args:
        path: The model file.
        pixels: Pixels of a typical picture.
        machine: Name of the processor.
        options: Options of prediction, but for the precision.
    """

    def __init__(self, path: Path, pixels: float, machine: str, options: PredictOptions) -> None:
        self.path, self.options = path, options
        self.key = {
            "model": bundle_cache.model_hash(path),
            "seenet": seenet.__version__,
            "libraries": bundle_cache.versions(),
            "processor": machine,
            "threads": processor.threads(),
            "log2 of pixels": round(math.log2(pixels)),
            **asdict(options),
        }
        del self.key["precision"]
        key = digest(json.dumps(self.key, sort_keys=True))
        self.file = cache_folder() / "choices" / f"{key}.json"
        self.known = _read(self.file)
        self.passing: dict[Backend, dict[str, Any]] = {}
        """Failures of the moment: reported, but not remembered."""

    def best(self, backends: Collection[Backend]) -> Backend | None:
        """Return the fastest of `backends`, or None if no speed is known.

        If its bundle is no longer in the cache, all speeds are forgotten, so that all are tried
        again.
        """
        speeds = {
            backend: self.known[backend]["speed"] * (GAIN if backend == PLAIN else 1)
            for backend in backends
            if "speed" in self.known.get(backend, {})
        }
        fastest = max(speeds, key=lambda backend: speeds[backend], default=None)
        if fastest and not self.is_ready(fastest):
            self.known, fastest = {}, None
        return fastest

    def is_ready(self, backend: Backend) -> bool:
        """Return whether a backend needs no export."""
        return backend[0] == "eager" or bundle_cache.present(self.path, backend[0])

    def forecast(self, backends: Collection[Backend], once: float) -> float:
        """Return the seconds that `attempt` is expected to take.

        Args:
            backends: The backends to try.
            once: Seconds that its pictures take in plain fp32.
        """
        exports = bundle_cache.forecast(self.path, {runtime for runtime, _ in backends} - {"eager"})
        passes = (1 + len(backends)) * (1 + ROUNDS)
        return exports + len(backends) * OPENING_SECONDS + passes * once

    def candidates(self, backends: Sequence[Backend]) -> list[dict[str, Any]]:
        """Return what is known of `backends`, as JSON values."""
        known = {**self.known, **self.passing}
        return [
            {"runtime": backend[0], "precision": backend[1], **known[backend]}
            for backend in backends
            if backend in known
        ]

    def attempt(
        self,
        backends: Sequence[Backend],
        opened: dict[Backend, BasePredictor],
        pictures: Sequence[Path],
        *,
        seconds: float,
        rounds: float,
        exports: float,
    ) -> None:
        """Open backends, compare them with plain fp32, time them, and remember the results.

        Failures are recorded, except that of plain fp32.

        Args:
            backends: The backends to open.
            opened: Predictors that are open already; the others are added.
            pictures: The pictures to compare and time on.
            seconds: Forecast of the whole, for the progress bar.
            rounds: Seconds that timing may take.
            exports: Seconds that each export may take.
        """
        before = {kind for kind in bundle_cache.KINDS if bundle_cache.present(self.path, kind)}
        failed: dict[Backend, Exception] = {}
        reader = PictureReader.of_model(self.path)
        images = [reader(path) for path in pictures]
        with ticking(f"trying {', '.join(map(' '.join, backends))}", seconds) as say:
            # Exports first: they need the most memory.
            for backend in sorted(
                {PLAIN, *backends} - opened.keys(), key=lambda one: (one[0] == "eager", one)
            ):
                ready = self.is_ready(backend)
                say(f"{'loading' if ready else 'exporting to'} {backend[0]}")
                try:
                    for other, failure in failed.items():
                        # It would need the export that has just failed.
                        if not ready and not self.is_ready(other):
                            raise failure
                    opened[backend] = open_backend(
                        self.path, backend, pictures, self.options, patience=exports
                    )
                except Exception as error:  # of libraries that may be broken in any way
                    if backend == PLAIN:
                        raise
                    failed[backend] = error
            say("timing")
            times, equal = measured(opened, images, failed, rounds)
        for backend, why in failed.items():
            result = {"failed": " ".join(str(why).split())[:200] or type(why).__name__}
            (self.passing if bundle_cache.is_temporary(why) else self.known)[backend] = result
        for backend, taken in times.items():
            self.known[backend] = {
                "seconds": round(taken, 4),
                "speed": round(times[PLAIN] / taken, 3),
                "equal": round(equal[backend], 6),
            }
        with suppress(OSError):
            record = {"key": self.key, "candidates": self.candidates([*self.known])}
            write_text(self.file, json.dumps(record, indent=1) + "\n")
        # Backends that failed for now will need the bundles that exist.
        if not self.passing and (best := self.best([*backends, PLAIN])):
            for kind in set(bundle_cache.KINDS) - before - {best[0]}:
                bundle_cache.remove(self.path, kind)


def measured(
    opened: dict[Backend, BasePredictor],
    images: Sequence[np.ndarray],
    failed: dict[Backend, Exception],
    limit: float,
) -> tuple[dict[Backend, float], dict[Backend, float]]:
    """Measure the backends that answer as `PLAIN`, and add the others to `failed`.

    Each picture is run once to warm up and compare, then up to `ROUNDS` times, backend by backend;
    its fastest time counts. The first round is always completed.

    Args:
        opened: Predictor of each backend.
        images: The pictures.
        failed: Receives the errors.
        limit: Seconds; a backend that takes longer to compare is not run again, and no round begins
            after so many seconds of rounds.

    Returns:
        Seconds a picture, and share of equal classes, by backend.
    """
    expected = [opened[PLAIN].mask(image) for image in images]
    equal, times = {PLAIN: 1.0}, {PLAIN: [math.inf] * len(images)}
    running = [PLAIN]
    for backend in [one for one in opened if one != PLAIN]:
        began = time.perf_counter()
        try:
            same = [
                opened[backend].mask(image) == mask
                for image, mask in zip(images, expected, strict=True)
            ]
        except Exception as error:  # as in opening
            failed[backend] = error
            continue
        taken = time.perf_counter() - began
        share = float(sum(one.sum() for one in same) / sum(one.size for one in same))
        if share < AGREEMENT[backend[1]]:
            failed[backend] = CheckError(
                f"gives {100 * share:.3f} % of the pixels the class of plain fp32, "
                f"expected {100 * AGREEMENT[backend[1]]:g} %"
            )
            continue
        too_slow = taken > limit
        equal[backend] = share
        times[backend] = [taken / len(images) if too_slow else math.inf] * len(images)
        if not too_slow:
            running.append(backend)
    began = time.perf_counter()
    for _ in range(ROUNDS):
        for place, image in enumerate(images):
            for backend in running:
                started = time.perf_counter()
                opened[backend].mask(image)
                times[backend][place] = min(times[backend][place], time.perf_counter() - started)
        least = min(sum(times[backend]) for backend in running)
        running = [backend for backend in running if sum(times[backend]) <= SLOW * least]
        if len(running) == 1 or time.perf_counter() - began > limit:
            break
    return {backend: sum(taken) / len(images) for backend, taken in times.items()}, equal


@contextmanager
def ticking(what: str, seconds: float) -> Iterator[Callable[[str], None]]:
    """Show a progress bar that advances by one a second; yield a function that sets its note.

    Args:
        what: Name of the bar.
        seconds: Forecast, which is the bar's total.
    """
    total, note, ended = max(1, round(seconds)), [""], threading.Event()
    with bar(what, total, inner=True) as advance:

        def tick() -> None:
            left = total - 1
            while not ended.wait(1):
                advance(min(1, left), note[0])
                left = max(0, left - 1)

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield lambda text: note.__setitem__(0, text)
        finally:
            ended.set()
            thread.join()


def _read(file: Path) -> dict[Backend, dict[str, Any]]:
    """Read the known speeds; none if the file is missing or damaged."""
    try:
        known = {
            (one.pop("runtime"), one.pop("precision")): one
            for one in json.loads(file.read_text(encoding="utf-8"))["candidates"]
        }
        return known if all("failed" in one or one["speed"] > 0 for one in known.values()) else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
