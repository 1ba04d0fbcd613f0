"""Memory and time of a 179-megapixel GeoTIFF through the code of `predict`.

    python benchmarks/large_tiff.py [--side 13377] [--network tiny] [--scale 1] [--memory 2]

The reliability bar P1 is 2 GB over the idle process. The picture is a tiled, compressed GeoTIFF of
the bundled photographs, repeated. `tiny` is a network of two convolutions with a grid of stride 8:
it shows the cost of reading, cutting, resizing and writing, not of a real network. Any model's name
or file will do, with --scale for those that would take hours. Memory is the peak of the resident
set of this process over its value after loading the model, sampled every 10 ms.
"""

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from torch import Tensor, nn

from seenet.core.images import read_image
from seenet.data.camvid import CAMVID11
from seenet.model.segmenter import Normalization, Segmenter
from seenet.prediction.base import BasePredictor
from seenet.prediction.batch import predict_files
from seenet.prediction.loading import load
from seenet.prediction.predictor import Predictor
from seenet.prediction.tiles import MEMORY, Tiling

BAR = 2.0
"""Gigabytes."""


class Tiny(Segmenter):
    """Network of a 7x7 convolution with stride 8, ReLU, and a 1x1 to the classes."""

    pad_multiple = 1
    auxiliary = None

    def __init__(self) -> None:
        super().__init__(
            Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            {"num_classes": 11, "in_channels": 3},
        )
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 7, 8, 3), nn.ReLU(), nn.Conv2d(16, 11, 1))

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        return {"scores": self.layers(images)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=13377)
    parser.add_argument("--network", default="tiny", help="tiny, or a model by name or file")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument(
        "--memory", type=float, default=MEMORY, help="as `seenet predict --memory`, gigabytes"
    )
    parser.add_argument(
        "--folder", type=Path, help="where the picture and its mask go; default: a temporary folder"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        source = folder / "large.tif"
        if not source.exists():
            # In another process: memory that it leaves would enlarge the idle one.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
                other.submit(draw, source, arguments.side).result()
        found = measure(arguments, source, folder / "out")
    print(json.dumps(found, indent=1))
    verdict = "holds" if found["gigabytes"] <= BAR else "MISSED"
    print(f"bar: at most {BAR} GB over the idle process: {verdict} ({found['gigabytes']} GB)")


def draw(path: Path, side: int) -> None:
    photographs = [
        read_image(file)[:400, :400]
        for file in sorted(Path(str(files("seenet") / "photos")).glob("*.jpg"))
    ]
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": side,
        "width": side,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32633",
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "zlevel": 1,
        "transform": from_origin(500_000, 4_649_776, 0.25, 0.25),
    }
    with rasterio.open(path, "w", **profile) as file:
        for number, top in enumerate(range(0, side, 400)):
            row = np.concatenate(
                [
                    photographs[(number + place) % len(photographs)]
                    for place in range(-(-side // 400))
                ],
                1,
            )
            band = row[: side - top, :side]
            file.write(np.moveaxis(band, 2, 0), window=((top, top + len(band)), (0, side)))


def measure(arguments: argparse.Namespace, source: Path, out: Path) -> dict[str, Any]:
    tiling = Tiling("auto", memory=arguments.memory)
    predictor: BasePredictor
    if arguments.network == "tiny":
        info = {"file": "tiny", "sha256": "0" * 64}
        predictor = Predictor(
            Tiny().eval(),
            CAMVID11,
            device="cpu",
            scales=(arguments.scale,),
            tiling=tiling,
            info=info,
        )
    else:
        predictor = load(
            arguments.network,
            "cpu",
            scales=(arguments.scale,),
            tile="auto",
            memory=arguments.memory,
        )
    # Buffers that libraries keep after a first pass belong to the idle process.
    predictor.mask(np.zeros((64, 64, 3), np.uint8))
    idle, most, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], resident())

    thread = threading.Thread(target=watch)
    thread.start()
    report = predict_files(predictor, [source], out, overwrite=True)
    done.set()
    thread.join()
    report.check()
    with rasterio.open(out / "masks" / source.name) as mask, rasterio.open(source) as picture:
        assert (mask.shape, mask.crs, mask.transform) == (
            picture.shape,
            picture.crs,
            picture.transform,
        )
        pixels = mask.width * mask.height
    return {
        "pixels": pixels,
        "network": arguments.network,
        **predictor.settings,
        "gigabytes": round((most[0] - idle) / 1e9, 2),
        "idle_gigabytes": round(idle / 1e9, 2),
        "seconds": round(report.seconds, 1),
        "source_bytes": source.stat().st_size,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }


def resident() -> int:
    """Return the bytes of this process in main memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
