"""Draw the pictures of README.md and results.md: `python docs/results/figures.py`.

The sources are committed results and the bundled photographs.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import seenet
from seenet.demo import MODEL, bundled_photographs
from seenet.report.figures import points, running_mean
from seenet.training.logging import read_metrics

HERE = Path(__file__).parent
IMAGES = HERE.parent / "images"
STREETS = ("coco_000000261888", "coco_000000184324", "coco_000000252639", "coco_000000568290")
HEIGHT = 300
"""Pixels of a photograph in the README's picture."""


def draw_curves() -> None:
    """Loss and mIoU of each run in this folder, over its steps."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, path in enumerate(sorted(HERE.glob("*.metrics.jsonl"))):
        entries, name = read_metrics(path), path.name.removesuffix(".metrics.jsonl")
        steps, losses = zip(*points(entries, "loss"), strict=True)
        left.plot(steps, running_mean(losses, 40), color=f"C{place}", label=name)
        miou = points(entries, "val", "miou")
        if miou:
            right.plot(
                [step for step, _ in miou],
                [100 * value for _, value in miou],
                marker="o",
                color=f"C{place}",
                label=name,
            )
    left.set(xlabel="step", title="training loss, running mean of 40 steps", ylim=(0, None))
    right.set(xlabel="step", title="mIoU, %, on what the run holds out", ylim=(0, 100))
    for axes in (left, right):
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(IMAGES / "curves.png", dpi=110)


def draw_streets() -> None:
    """Photographs above what the bundled model makes of them."""
    net = seenet.load(MODEL)
    columns = []
    for path in bundled_photographs():
        if path.stem in STREETS:
            with Image.open(path) as photograph:
                size = (round(HEIGHT * photograph.width / photograph.height), HEIGHT)
                pair = [photograph.convert("RGB"), net(path).overlay()]
            columns.append(
                np.concatenate(
                    [np.asarray(picture.resize(size, Image.Resampling.LANCZOS)) for picture in pair]
                )
            )
    Image.fromarray(np.concatenate(columns, axis=1)).save(
        IMAGES / "streets.jpg", quality=85, optimize=True
    )


if __name__ == "__main__":
    draw_curves()
    draw_streets()
