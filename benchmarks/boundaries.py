"""Cost of counting beside the network: the confusion matrix, alone and with mIoU in bands.

    python benchmarks/boundaries.py [data/CamVid] [--repetitions 30] [--threads 2] [--out FILE.json]

The bands have the paper's seven widths, around the edges between classes or (trimap) around rims of
ignored pixels, which are put on these edges, five pixels wide as VOC's.

The bars: on frames of 360 x 480 counting in bands takes at most 10 % of the forward pass of
`camvid-lite0`, the matrix alone at most 2 %. Forward pass and counts alternate in one process.
Shares are of medians of CPU time, which other work on the machine changes least, as if all threads
shared the forward pass evenly while counting has one: the strictest reading. Without CamVid the
pictures are the bundled photographs, and the network's masks of the mirrored pictures are their
labels.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import seenet
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.evaluation.confusion import score_image
from seenet.evaluation.metrics.boundaries import WIDTHS, transition_distance
from seenet.prediction.loading import load
from seenet.prediction.predictor import Predictor
from seenet.prediction.result import to_mask

PICTURES = 5
BARS = {"matrix": 0.02, "bands": 0.10, "trimap": 0.10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "camvid", nargs="?", type=Path, help="SegNet's CamVid; default: the bundled photographs"
    )
    parser.add_argument("--repetitions", type=int, default=30, help="at least 2")
    parser.add_argument("--threads", type=int, help="of torch; default: as many as it takes")
    parser.add_argument("--out", type=Path, help="write the JSON here as well")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    found = measure(load("camvid-lite0", "cpu"), options.camvid, options.repetitions)
    print(json.dumps(found, indent=1))
    for name, bar in BARS.items():
        share = found["share_of_forward"][name]
        print(
            f"{name}: {100 * share:.2f} % of the forward pass, bar {100 * bar:.0f} %: "
            f"{'holds' if share <= bar else 'MISSED'}"
        )
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(predictor: Predictor, camvid: Path | None, repetitions: int) -> dict[str, Any]:
    """Return milliseconds of each part (wall time and CPU time), and shares of the forward pass."""
    cases = pictures(predictor, camvid)
    walls: dict[str, list[float]] = {name: [] for name in ("forward", *BARS)}
    processors: dict[str, list[float]] = {name: [] for name in walls}
    labels = predictor.labels
    for repetition in range(repetitions + 1):
        image, truth, mask = cases[repetition % len(cases)]
        plain = (0, truth, mask, labels.num_classes, labels.ignore)
        rimmed = (0, with_rims(truth, labels.ignore), *plain[2:])
        parts: dict[str, Callable[[], object]] = {
            "forward": lambda image=image: predictor.scores(image),
            "matrix": lambda plain=plain: score_image(*plain),
            "bands": lambda plain=plain: score_image(*plain, boundary="transition", widths=WIDTHS),
            "trimap": lambda rimmed=rimmed: score_image(*rimmed, boundary="trimap", widths=WIDTHS),
        }
        for name, part in parts.items():
            wall, processor = time.perf_counter(), time.process_time()
            part()
            if repetition:  # the first one also sets up
                walls[name].append(1000 * (time.perf_counter() - wall))
                processors[name].append(1000 * (time.process_time() - processor))
    forward = statistics.median(processors["forward"]) / torch.get_num_threads()
    return {
        "share_of_forward": {
            name: round(statistics.median(processors[name]) / forward, 5) for name in BARS
        },
        "wall_ms": {name: spread(values) for name, values in walls.items()},
        "processor_ms": {name: spread(values) for name, values in processors.items()},
        "repetitions": repetitions,
        "size": list(cases[0][1].shape),
        "pictures": "camvid/val" if camvid else "bundled photographs",
        "widths": list(WIDTHS),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "seenet": seenet.__version__,
    }


def pictures(
    predictor: Predictor, camvid: Path | None
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return picture, label and prediction of a few frames of 360 x 480."""
    if camvid:
        split = open_split(DataSettings(kind="camvid", root=camvid), "val")
        pairs = [split.read(index * len(split) // PICTURES) for index in range(PICTURES)]
    else:
        folder = Path(str(resources.files("seenet") / "photos"))
        images = [
            np.array(Image.open(path).convert("RGB").resize((480, 360)))
            for path in sorted(folder.glob("*.jpg"))[:PICTURES]
        ]
        pairs = [
            (image, np.ascontiguousarray(predictor.mask(image[:, ::-1])[:, ::-1]))
            for image in images
        ]
    return [(image, truth, to_mask(predictor.scores(image))) for image, truth in pairs]


def with_rims(truth: np.ndarray, ignore: int) -> np.ndarray:
    """Return the label with the pixels within two of an edge pixel ignored."""
    distance = transition_distance(truth, ignore)
    return truth if distance is None else np.where(distance <= 3, ignore, truth).astype(truth.dtype)


def spread(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {
        "median": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "least": round(min(values), 3),
    }


def processor_name() -> str:
    """Return the CPU's name from the kernel, else from Python."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
