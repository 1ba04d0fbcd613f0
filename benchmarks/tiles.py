"""Share of pixels whose class differs between prediction in tiles and of the whole picture.

    python benchmarks/tiles.py [CAMVID] [--model camvid-lite0] [--tile 800] [--margins 256]

The reliability bar P2 is 0.5 % with a margin of 256. Twenty pictures: the ten bundled photographs,
enlarged twice (bicubic), and ten squares of four CamVid frames, two by two, from the validation
split; without CamVid the photographs alone. Their content is real, but they are not real large
pictures: enlarged ones have little detail, and joined ones have edges that no camera makes.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from seenet.core.images import read_image
from seenet.prediction.loading import load

BAR = 0.5
"""Percent of all pixels."""
ENLARGED = 2
JOINED = 2
PICTURES = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("camvid", type=Path, nargs="?", help="folder of CamVid")
    parser.add_argument("--model", default="camvid-lite0")
    parser.add_argument("--tile", type=int, default=800)
    parser.add_argument("--margins", default="256", help="pixels, with commas between")
    arguments = parser.parse_args()
    margins = [int(part) for part in arguments.margins.split(",")]
    whole = load(arguments.model, "cpu")
    tiled = {
        margin: load(arguments.model, "cpu", tile=arguments.tile, margin=margin)
        for margin in margins
    }
    changed: dict[str, dict[str, list[float]]] = {}
    pixels, differ, seconds = (
        0,
        dict.fromkeys(margins, 0),
        {"whole": 0.0, **{str(margin): 0.0 for margin in margins}},
    )
    for kind, image in pictures(arguments.camvid):
        started = time.perf_counter()
        expected = whole.mask(image)
        seconds["whole"] += time.perf_counter() - started
        pixels += expected.size
        for margin, predictor in tiled.items():
            started = time.perf_counter()
            differs = int((predictor.mask(image) != expected).sum())
            seconds[str(margin)] += time.perf_counter() - started
            differ[margin] += differs
            changed.setdefault(kind, {}).setdefault(str(margin), []).append(
                round(100 * differs / expected.size, 4)
            )
        print(
            kind,
            image.shape,
            {margin: values[-1] for margin, values in changed[kind].items()},
            flush=True,
        )
    shares = {str(margin): round(100 * count / pixels, 4) for margin, count in differ.items()}
    found = {
        "model": arguments.model,
        "tile": arguments.tile,
        "pixels": pixels,
        "changed_percent_by_margin": shares,
        "by_picture": changed,
        "seconds": {key: round(value, 1) for key, value in seconds.items()},
        "machine": platform.machine(),
        "load": os.getloadavg()[0],
        "processor": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
    print(json.dumps(found, indent=1))
    if "256" in shares:
        verdict = "holds" if shares["256"] <= BAR else "MISSED"
        print(f"bar: at most {BAR} % with a margin of 256: {verdict} ({shares['256']} %)")


def pictures(camvid: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield kind and picture, one of each kind after the other."""
    frames = sorted((camvid / "val").glob("*.png")) if camvid else []
    for number, path in enumerate(
        sorted(Path(str(files("seenet") / "photos")).glob("*.jpg"))[:PICTURES]
    ):
        photograph = Image.fromarray(read_image(path))
        size = (photograph.width * ENLARGED, photograph.height * ENLARGED)
        yield "photograph, enlarged", np.asarray(photograph.resize(size, Image.Resampling.BICUBIC))
        if frames:
            square = [
                read_image(path) for path in frames[number * JOINED**2 : (number + 1) * JOINED**2]
            ]
            rows = [
                np.concatenate(square[row * JOINED : (row + 1) * JOINED], 1)
                for row in range(JOINED)
            ]
            yield "CamVid frames, joined", np.concatenate(rows, 0)


if __name__ == "__main__":
    main()
