"""Line 8: time and memory of prediction over size, batch, classes and processes."""

import time
from typing import Any

import numpy as np
import torch

from benchmarks import contestants
from benchmarks.measuring import alone, interleaved, peak_mib, significant, spread
from seenet.core.labels import LabelSet
from seenet.prediction.predictor import Predictor

BACKBONE = "resnet18"
SIDES = (256, 512, 1024, 1536, 2048)
BATCHES = (1, 2, 4, 8, 16)
CLASSES = (2, 21, 150, 1000)
PROCESSES = (1, 2)
SIDE = 512
"""Side of the picture where something else grows."""
PICTURES = 6
"""Pictures of each process."""
AXES = {"size": SIDES, "batch": BATCHES, "classes": CLASSES, "processes": PROCESSES}


def measure(axis: str, value: int) -> dict[str, Any]:
    """Return seconds per picture and MiB over the loaded process, measured in a new process."""
    if axis == "processes":
        found = alone(_together, value)
    elif axis == "batch":
        found = alone(_batch, value)
    else:
        found = alone(
            _predict,
            value if axis == "size" else SIDE,
            value if axis == "classes" else contestants.CLASSES,
        )
    return {"line": 8, "axis": axis, "value": value, "backbone": BACKBONE, **found}


def predictor(classes: int) -> Predictor:
    names = tuple(f"class {index}" for index in range(classes))
    colours = tuple((index % 256, index // 256, 0) for index in range(classes))
    labels = LabelSet("bench", names, colours, ignore=max(255, classes))
    return Predictor(contestants.network("seenet", BACKBONE, classes=classes), labels, device="cpu")


def _predict(side: int, classes: int) -> dict[str, Any]:
    """Measure the predictor, from bytes to classes."""
    net = predictor(classes)
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    net.mask(picture[:64, :64])
    mib = peak_mib(lambda: net.mask(picture))
    return _point(interleaved({"one": lambda: net.mask(picture)}, seconds=10, most=10), mib, 1)


def _batch(count: int) -> dict[str, Any]:
    """Measure the scores of a batch, by the network that the predictor runs."""
    network = contestants.ready("seenet", contestants.network("seenet", BACKBONE))
    images = torch.randn(count, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)

    def forward(pixels: torch.Tensor = images) -> torch.Tensor:
        with torch.inference_mode():
            return network(pixels)

    forward(images[:1, :, :64, :64].contiguous(memory_format=torch.channels_last))
    mib = peak_mib(forward)
    return _point(interleaved({"one": forward}, seconds=10, most=10), mib, count)


def _point(found: dict[str, Any], mib: float, pictures: int) -> dict[str, Any]:
    times = found["seconds"]["one"]
    return {
        "seconds": spread([one / pictures for one in times]),
        "mib": round(mib),
        "rounds": len(times),
        "others": found["others"],
    }


def _together(count: int) -> dict[str, Any]:
    """Measure processes that predict at the same time and share the threads."""
    from multiprocessing import get_context

    context = get_context("fork")
    ready, queue = context.Barrier(count), context.Queue()
    threads = max(1, torch.get_num_threads() // count)

    def work() -> None:
        torch.set_num_threads(threads)
        net = predictor(contestants.CLASSES)
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        net.mask(picture)
        ready.wait()
        started = time.perf_counter()
        mib = peak_mib(lambda: [net.mask(picture) for _ in range(PICTURES)])
        queue.put((time.perf_counter() - started, mib))

    children = [context.Process(target=work) for _ in range(count)]
    for child in children:
        child.start()
    ended = [queue.get(timeout=600) for _ in children]
    for child in children:
        child.join()
    seconds = max(one for one, _ in ended) / (count * PICTURES)
    return {
        "seconds": {name: significant(seconds) for name in ("median", "low", "high")},
        "mib": round(sum(mib for _, mib in ended)),
        "rounds": PICTURES,
    }
