"""Ways to run a model that answer as plain fp32 does: how fast they are on this machine, measured once and remembered."""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

import seenet
from seenet.core import processor
from seenet.core.errors import CheckError, DataError
from seenet.core.files import cache_folder, digest, sha256, write_text
from seenet.core.images import read_image
from seenet.core.progress import bar
from seenet.export import bundle_cache
from seenet.prediction.base import BasePredictor
from seenet.prediction.bundle import BundlePredictor
from seenet.prediction.loading import load
from seenet.prediction.tiles import MARGIN, MEMORY, TileSize, Tiling
from seenet.prediction.trial import open_tried

log = logging.getLogger("seenet")

Way = tuple[str, str]
"""Runtime (eager, onnx, openvino) and precision."""
PLAIN: Way = ("eager", "fp32")
PICTURES = 3
"""That others are compared and timed on."""
ROUNDS = 3
SLOW = 1.5
"""A way that takes so many times as long as the fastest is not run again."""
GAIN = 1.05
"""Least speed-up of another way: less is not told from chance, and not worth masks of two ways."""
OPENING_SECONDS = 3.0
"""Taken for loading one way: a child process first."""
AGREEMENT = {"fp32": 0.9999, "bf16": 0.999}
"""Share of the pixels that must get the class that plain fp32 gives them, by precision."""


def open_way(
    path: Path,
    way: Way,
    pictures: Sequence[Path],
    *,
    device: str,
    scales: Sequence[float],
    flip: bool,
    tile: TileSize = "whole",
    margin: int = MARGIN,
    memory: float = MEMORY,
    factory: str | None = None,
    patience: float | None = None,
) -> BasePredictor:
    """The predictor of a model file that runs in `way`; where that needs a bundle it is verified on the first of `pictures`.

    `patience` and errors as `bundle_cache.bundle`.
    """
    runtime, precision = way
    if runtime == "eager":
        return load(path, device, precision, scales=scales, flip=flip, tile=tile, margin=margin, memory=memory, factory=factory)
    file = bundle_cache.bundle(path, runtime, lambda: _readable(pictures), patience=patience)
    info = {"file": str(path), "sha256": sha256(path)}
    return BundlePredictor(open_tried(file, precision=precision), scales=scales, flip=flip, tiling=Tiling(tile, margin, memory), info=info)


class Speeds:
    """What is known of each way to run a model here, on pictures of some size: {"seconds" a picture, "speed" as a multiple of plain fp32's,
    "equal": share of the pixels} or {"failed": why}. It lies in the cache.

    `options` are those of `open_way`, `machine` names the processor, `pixels` are those of a usual picture.
    """

    def __init__(self, path: Path, pixels: float, machine: str, options: dict[str, Any]) -> None:
        self.path, self.options = path, options
        self.key = {
            "model": sha256(path), "seenet": seenet.__version__, "libraries": bundle_cache.versions(), "processor": machine,
            "threads": processor.threads(), "log2 of pixels": round(math.log2(pixels)), **options,
        }  # fmt: skip
        self.file = cache_folder() / "choices" / f"{digest(json.dumps(self.key, sort_keys=True))}.json"
        self.known = _read(self.file)
        self.passing: dict[Way, dict[str, Any]] = {}
        """What failed for a reason of the moment: told, and not remembered."""

    def best(self, ways: Collection[Way]) -> Way | None:
        """The fastest of `ways`; None where nothing is known, or its bundle is gone: then all is to be tried again."""
        speeds = {way: self.known[way]["speed"] for way in ways if "speed" in self.known.get(way, {})}
        found = max(speeds, key=lambda way: speeds[way] * (GAIN if way == PLAIN else 1), default=None)
        if found and not self.is_ready(found):
            self.known, found = {}, None
        return found

    def is_ready(self, way: Way) -> bool:
        """Whether it needs no export."""
        return way[0] == "eager" or bundle_cache.present(self.path, way[0])

    def forecast(self, ways: Collection[Way], once: float) -> float:
        """Seconds that `attempt` will take, where its pictures take `once` seconds in plain fp32."""
        exports = bundle_cache.forecast(self.path, {runtime for runtime, _ in ways} - {"eager"})
        return exports + len(ways) * OPENING_SECONDS + (1 + len(ways)) * (1 + ROUNDS) * once

    def candidates(self, ways: Sequence[Way]) -> list[dict[str, Any]]:
        """Return the findings on `ways`, as JSON values."""
        found = {**self.known, **self.passing}
        return [{"runtime": way[0], "precision": way[1], **found[way]} for way in ways if way in found]

    def attempt(
        self,
        ways: Sequence[Way],
        opened: dict[Way, BasePredictor],
        pictures: Sequence[Path],
        *,
        seconds: float,
        rounds: float,
        exports: float,
    ) -> None:
        """Open `ways`, beside those in `opened` and into it, compare all with plain fp32 on `pictures`, and remember what was found.

        What fails is noted. A bar shows the `seconds` that were forecast; `rounds` are those that timing may take, `exports` those that
        each export may.
        """
        before = {kind for kind in bundle_cache.KINDS if bundle_cache.present(self.path, kind)}
        failed: dict[Way, Exception] = {}
        images = [read_image(path) for path in pictures]
        with ticking(f"trying {', '.join(map(' '.join, ways))}", seconds) as say:
            # Bundles first: they need the most memory while they are made.
            for way in sorted({PLAIN, *ways} - opened.keys(), key=lambda way: (way[0] == "eager", way)):
                say(f"{'loading' if self.is_ready(way) else 'exporting to'} {way[0]}")
                try:
                    held = next((error for other, error in failed.items() if not self.is_ready(other)), None)
                    if held and not self.is_ready(way):
                        # It would need what could not be made a moment ago.
                        raise held
                    opened[way] = open_way(self.path, way, pictures, patience=exports, **self.options)
                except Exception as error:  # of libraries that may be broken in any way; plain torch is there all the same
                    if way == PLAIN:
                        raise
                    failed[way] = error
            say("timing")
            times, equal = measured(opened, images, failed, rounds)
        for way, why in failed.items():
            found = {"failed": " ".join(str(why).split())[:200] or type(why).__name__}
            (self.passing if bundle_cache.is_temporary(why) else self.known)[way] = found
        for way, taken in times.items():
            self.known[way] = {"seconds": round(taken, 4), "speed": round(times[PLAIN] / taken, 3), "equal": round(equal[way], 6)}
        with suppress(OSError):
            write_text(self.file, json.dumps({"key": self.key, "candidates": self.candidates([*self.known])}, indent=1) + "\n")
        # Those that failed for now will need what is there.
        if not self.passing and (best := self.best([*ways, PLAIN])):
            for kind in set(bundle_cache.KINDS) - before - {best[0]}:
                bundle_cache.remove(self.path, kind)


def measured(
    opened: dict[Way, BasePredictor], images: Sequence[np.ndarray], failed: dict[Way, Exception], limit: float
) -> tuple[dict[Way, float], dict[Way, float]]:
    """Seconds a picture and share of equal classes of each way that answers as `PLAIN`; what does not goes to `failed`.

    Each picture is run once to warm up and compare, then up to `ROUNDS` times in turn; the fastest of these counts. A way that takes over
    `limit` seconds to compare is not run again, nor any after so many seconds of rounds; the first round is whole.
    """
    expected = [opened[PLAIN].mask(image) for image in images]
    equal, times = {PLAIN: 1.0}, {PLAIN: [math.inf] * len(images)}
    running = [PLAIN]
    for way in [way for way in opened if way != PLAIN]:
        began = time.perf_counter()
        try:
            same = [opened[way].mask(image) == mask for image, mask in zip(images, expected, strict=True)]
        except Exception as error:  # as in opening
            failed[way] = error
            continue
        taken = time.perf_counter() - began
        share = float(sum(one.sum() for one in same) / sum(one.size for one in same))
        if share < AGREEMENT[way[1]]:
            asked = f"expected {100 * AGREEMENT[way[1]]:g} %"
            failed[way] = CheckError(f"gives {100 * share:.3f} % of the pixels the class of plain fp32, {asked}")
        elif taken > limit:
            equal[way], times[way] = share, [taken / len(images)] * len(images)
        else:
            equal[way], times[way] = share, [math.inf] * len(images)
            running.append(way)
    began = time.perf_counter()
    for _ in range(ROUNDS):
        for place, image in enumerate(images):
            for way in running:
                started = time.perf_counter()
                opened[way].mask(image)
                times[way][place] = min(times[way][place], time.perf_counter() - started)
        least = min(sum(times[way]) for way in running)
        running = [way for way in running if sum(times[way]) <= SLOW * least]
        if len(running) == 1 or time.perf_counter() - began > limit:
            break
    return {way: sum(found) / len(images) for way, found in times.items()}, equal


@contextmanager
def ticking(what: str, seconds: float) -> Iterator[Callable[[str], None]]:
    """A bar of as many steps as seconds are forecast, which moves by the clock; yields what sets the note at its end."""
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


def _read(file: Path) -> dict[Way, dict[str, Any]]:
    """Whatever is wrong with the file, it can be made again."""
    try:
        found = {(one.pop("runtime"), one.pop("precision")): one for one in json.loads(file.read_text(encoding="utf-8"))["candidates"]}
        return found if all("failed" in one or one["speed"] > 0 for one in found.values()) else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _readable(pictures: Sequence[Path]) -> list[Path]:
    """The first that can be read, each of another file name, by which `seenet export` would name them."""
    found: dict[str, Path] = {}
    for path in pictures[: 4 * PICTURES]:
        if path.name not in found and len(found) < PICTURES:
            with suppress(DataError, OSError):
                read_image(path)
                found[path.name] = path
    return list(found.values())
