"""The fastest way to run a model that answers as plain fp32 does: measured on the user's first pictures, once a model and machine."""

import json
import logging
import math
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import seenet
from seenet.core import processor
from seenet.core.errors import BusyError, DataError, SeenetError
from seenet.core.files import cache_folder, digest, sha256, write_text
from seenet.core.images import read_image
from seenet.export import bundles
from seenet.prediction.base import BasePredictor
from seenet.prediction.bundles.bundle import BundlePredictor
from seenet.prediction.bundles.trial import open_tried
from seenet.prediction.loading import PredictOptions, open_predictor

log = logging.getLogger("seenet")

Way = tuple[str, str]
"""Runtime (eager, onnx, openvino) and precision."""
PLAIN: Way = ("eager", "fp32")
PICTURES = 3
"""That are measured, those of the front that can be read."""
ROUNDS = 3
LONG_SECONDS = 10.0
"""Where plain fp32 takes longer a picture, one picture has to do."""
AGREEMENT = {"fp32": 0.9999, "bf16": 0.999}
"""Share of the pixels that must get the class that plain fp32 gives them, by precision."""
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Choice:
    """What is computed with, and why."""

    runtime: str
    precision: str
    why: str
    candidates: list[dict[str, Any]] = field(default_factory=list)
    """Where it was measured, of each: runtime, precision, and either seconds a picture and the share of equal classes, or what failed."""


def open_way(
    path: Path,
    way: Way,
    pictures: Sequence[Path],
    options: PredictOptions,
) -> BasePredictor:
    """The predictor of a model file that runs in `way`; where that needs a bundle it is verified on the first of `pictures`."""
    runtime, precision = way
    if runtime == "eager":
        return open_predictor(path, replace(options, precision=precision))
    file = bundles.bundle(path, runtime, lambda: [front for front, _ in _front(pictures)], _versions())
    info = {"file": str(path), "sha256": sha256(path)}
    opened = open_tried(file, precision=precision)
    return BundlePredictor(opened, scales=options.scales, flip=options.flip, tiling=options.tiling, info=info)


def fastest(path: Path, ways: Sequence[Way], pictures: Sequence[Path], *, machine: str, options: PredictOptions) -> Choice:
    """Of `ways` the fastest on the first of `pictures` that gives the classes of plain fp32; remembered in the cache.

    `machine` names the processor; the precision is a way's, not that of `options`. A way that fails is noted and left out; DataError
    where all do.
    Where another process holds the exports for too long it is plain fp32, for this time; BusyError where that is not among `ways`.
    """
    images = [image for _, image in _front(pictures)]
    if not images:
        return Choice(*ways[0], "none of the first pictures can be read")
    side = statistics.median(image.shape[0] * image.shape[1] for image in images)
    key = {
        "model": sha256(path), "seenet": seenet.__version__, "libraries": _versions(), "processor": machine,
        "threads": processor.threads(), "log2 of pixels": round(math.log2(side)), "ways": ways, **asdict(options),
    }  # fmt: skip
    del key["precision"]
    text = json.dumps(key, sort_keys=True)
    file = cache_folder() / "choices" / f"{digest(text)}.json"
    known = _known(file)
    if known and (known.runtime == "eager" or bundles.present(path, known.runtime, _versions())):
        return known
    log.info("trying %s on the first pictures (once for this model and machine; minutes)", ", ".join(map(" ".join, ways)))
    try:
        chosen = _tried(path, ways, pictures, images, options)
    except BusyError as error:
        if ways[0] != PLAIN:
            raise
        return Choice(*PLAIN, str(error))
    with suppress(OSError):
        write_text(file, json.dumps({"key": key, "choice": asdict(chosen)}, indent=1) + "\n")
    return chosen


def _known(file: Path) -> Choice | None:
    """Whatever is wrong with the file, it can be made again."""
    try:
        return Choice(**json.loads(file.read_text(encoding="utf-8"))["choice"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tried(path: Path, ways: Sequence[Way], pictures: Sequence[Path], images: list[np.ndarray], options: PredictOptions) -> Choice:
    there = {kind for kind in bundles.SUFFIXES if bundles.present(path, kind, _versions())}
    failed: dict[Way, str] = {}
    opened: dict[Way, BasePredictor] = {}
    # Bundles first: while they are made this process holds no network.
    for way in sorted({PLAIN, *ways}, key=lambda way: way[0] == "eager"):
        try:
            opened[way] = open_way(path, way, pictures, options=options)
        except BusyError:
            raise
        except Exception as error:  # of libraries that may be broken in any way; plain torch is there all the same
            if way == PLAIN:
                raise
            failed[way] = " ".join(str(error).split())[:200]
    seconds, equal = measured(opened, images, failed)
    right = [way for way in ways if way in seconds]
    if not right:
        raise DataError(f"{path}: {'; '.join(f'{runtime} {precision}: {failed[runtime, precision]}' for runtime, precision in ways)}")
    best = min(right, key=lambda way: seconds[way])
    for kind in set(bundles.SUFFIXES) - there - {best[0]}:
        bundles.remove(path, kind, _versions())
    candidates = []
    for way in ways:
        found = {"failed": failed[way]} if way in failed else {"seconds": round(seconds[way], 4), "equal": round(equal[way], 6)}
        candidates.append({"runtime": way[0], "precision": way[1], **found})
    return Choice(*best, f"{seconds[PLAIN] / seconds[best]:.2f} times as fast as plain fp32 on the first pictures", candidates)


def measured(
    opened: dict[Way, BasePredictor], images: Sequence[np.ndarray], failed: dict[Way, str]
) -> tuple[dict[Way, float], dict[Way, float]]:
    """Seconds a picture and share of equal classes of each way that answers as `PLAIN`; what does not goes to `failed`.

    Each picture is run once to warm up and compare, then `ROUNDS` times in turn; the fastest of these counts.
    """
    started = time.perf_counter()
    expected = [opened[PLAIN].mask(images[0])]
    if time.perf_counter() - started > LONG_SECONDS:
        images = images[:1]
    expected += [opened[PLAIN].mask(image) for image in images[1:]]
    equal: dict[Way, float] = {}
    for way, predictor in opened.items():
        try:
            same = [predictor.mask(image) == mask for image, mask in zip(images, expected, strict=True)]
        except (SeenetError, MemoryError, RuntimeError) as error:
            failed[way] = " ".join(str(error).split())[:200]
            continue
        share = float(sum(one.sum() for one in same) / sum(one.size for one in same))
        if share < AGREEMENT[way[1]]:
            failed[way] = f"gives {100 * share:.3f} % of the pixels the class of plain fp32, expected {100 * AGREEMENT[way[1]]:g} %"
        else:
            equal[way] = share
    times: dict[Way, list[list[float]]] = {way: [[] for _ in images] for way in equal}
    for _ in range(ROUNDS):
        for place, image in enumerate(images):
            for way in equal:
                started = time.perf_counter()
                opened[way].mask(image)
                times[way][place].append(time.perf_counter() - started)
    return {way: sum(map(min, found)) / len(images) for way, found in times.items()}, equal


def _front(pictures: Sequence[Path]) -> list[tuple[Path, np.ndarray]]:
    """The first that can be read, each of another file name, by which `seenet export` would name them."""
    found: dict[str, tuple[Path, np.ndarray]] = {}
    for path in pictures[: 4 * PICTURES]:
        if path.name not in found and len(found) < PICTURES:
            with suppress(DataError, OSError):
                found[path.name] = (path, read_image(path))
    return list(found.values())


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
