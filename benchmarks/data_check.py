"""Pairs a second and core that `seenet data check` reads, beside plain decoding of the same files.

    python benchmarks/data_check.py [CAMVID] [--pairs 200] [--tries 7]

Each try reads the same pairs in both ways, one after the other, in one process. The rate is by CPU
time, which other work on the machine changes little, and by wall time. Without CamVid (SegNet's,
360 x 480) drawn scenes of that size are written to a temporary folder, PNG as CamVid's are.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from seenet.core.images import read_ids, read_image
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.check.scan import examine
from seenet.data.shapes import SHAPES, ShapesSplit
from seenet.data.split import FileSplit

Rates = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("camvid", type=Path, nargs="?", help="folder of CamVid; none: drawn scenes")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--tries", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        split = (
            camvid(arguments.camvid) if arguments.camvid else drawn(Path(folder), arguments.pairs)
        )
        indices = range(min(arguments.pairs, len(split)))
        works: dict[str, Callable[[int], object]] = {
            "data check": lambda index: examine(split, index),
            "decoding alone": lambda index: (
                read_image(split.images[index]),
                read_ids(split.masks[index]),
            ),
        }
        rates: dict[str, Rates] = {name: {"processor": [], "clock": []} for name in works}
        for name, work in [*works.items()] * (arguments.tries + 1):
            processor, clock = time.process_time(), time.perf_counter()
            for index in indices:
                work(index)
            rates[name]["processor"].append(len(indices) / (time.process_time() - processor))
            rates[name]["clock"].append(len(indices) / (time.perf_counter() - clock))
    # The first turn fills the caches.
    table = {
        name: {by: spread(values[1:]) for by, values in found.items()}
        for name, found in rates.items()
    }
    about = {
        "pairs": len(indices),
        "tries": arguments.tries,
        "data": split.name,
        "machine": platform.machine(),
        "load": os.getloadavg()[0],
    }
    print(json.dumps({**about, "pairs_per_second_and_core": table}, indent=1))


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 1),
        "least": round(min(values), 1),
        "most": round(max(values), 1),
    }


def camvid(root: Path) -> FileSplit:
    split = open_split(DataSettings(kind="camvid", root=root), "train")
    assert isinstance(split, FileSplit)
    return split


def drawn(folder: Path, count: int) -> FileSplit:
    """Write scenes of 360 x 480, with noise so that they compress about as badly as photographs."""
    scenes, rng = ShapesSplit("train", count, 480), np.random.default_rng(0)
    images, masks = (
        [folder / f"{index}.png" for index in range(count)],
        [folder / f"{index}-mask.png" for index in range(count)],
    )
    for index in range(count):
        image, mask = scenes.read(index)
        noise = rng.integers(-6, 7, (360, 480, 3))
        Image.fromarray(np.clip(image[:360] + noise, 0, 255).astype(np.uint8)).save(images[index])
        Image.fromarray(mask[:360]).save(masks[index])
    return FileSplit(
        "drawn", SHAPES, tuple(map(str, range(count))), tuple(images), tuple(masks), read_ids
    )


if __name__ == "__main__":
    main()
