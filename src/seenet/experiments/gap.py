"""The semantic gap: how alike two stages' features are, before and after enhancement (`seenet figure gap`)."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import torch

import seenet
from seenet.core.errors import NotFiniteError, UsageError
from seenet.core.files import check_free, replacing, write_text
from seenet.core.images import image_size
from seenet.core.progress import track
from seenet.data import Split, open_split
from seenet.evaluation.run import data_settings, default_out
from seenet.experiments.cka import SEED, Moments, draw_points, linear_cka
from seenet.experiments.each_picture import with_stages
from seenet.experiments.gap_figure import figure
from seenet.model import SeENet, StageProbe
from seenet.model.pyramid import pool_to
from seenet.model.seem import SeEM
from seenet.prediction.loading import load_trained
from seenet.prediction.predictor import Predictor
from seenet.prediction.prefetch import prefetch

log = logging.getLogger("seenet")

RESULT, FIGURE = "gap.json", "gap.png"
PIXELS = 20_000
PAIRS = (("B2", "B3"), ("P2", "B3"), ("B3", "B4"), ("P3", "B4"))
"""Neighbouring stages before and after enhancement (docs/probes.md); EB2 there is P2."""
RULE = (
    "linear CKA ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F) (Kornblith et al., ICML 2019) of centred features at the coarser stage's grid, the "
    "finer average-pooled to it, in float64; branches: the channels of P2 and P3 behind their input alone"
)


@dataclass(frozen=True)
class Pair:
    """Two stages that a model has: the grid's stride of each, and how many of x's last channels are SeEM's branches."""

    x: str
    y: str
    strides: tuple[int, int]
    branches: int


def write_gap(
    model: str,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    *,
    split: str | None = None,
    pixels: int = PIXELS,
    device: str = "auto",
    out: Path | None = None,
    overwrite: bool = False,
    command: str | None = None,
) -> tuple[dict[str, Any], Path]:
    """Compare the stages of a model on a split; writes OUT/gap.json and OUT/gap.png, returns the former's content and OUT.

    Which data: as `evaluation.run.run_evaluation`. OUT is by default `gap/SPLIT` in the model's run, or `gaps/MODEL-SPLIT`. Raises
    UsageError: settings, or a network whose stages are not known; DataError: no such model or data, results there already;
    NotFiniteError: a stage that is NaN or does not vary.
    """
    if pixels < 2:
        raise UsageError(f"--pixels {pixels}: expected at least 2")
    path = with_stages(model)
    settings = data_settings(path, recipe, list(overrides))
    which = split or settings.val or "val"
    folder = out or default_out(path, which, "gap", "gaps")
    check_free([folder / RESULT, folder / FIGURE], overwrite=overwrite)
    opened = open_split(settings, which)
    predictor = load_trained(path, device)
    data, _, name = opened.name.partition("/")
    result = {
        "pairs": compare(predictor, opened, pixels), "rule": RULE, "pixels": pixels, "seed": SEED,
        "data": data, "split": name, "images": len(opened), "labels": opened.labels.name,
        "ignore_rule": "labels are not looked at: points are drawn from whole pictures",
        "size_rule": "pictures at their own size; points of a grid beyond the picture (padding) are left out",
        **predictor.settings, "model": predictor.info, "version": seenet.__version__, "command": command,
    }  # fmt: skip
    with replacing(folder / FIGURE) as temporary:
        temporary.write_bytes(figure(result))
    # Last, so that a result file means that all of it is there.
    write_text(folder / RESULT, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return result, folder


def pairs_of(model: Any) -> list[Pair]:
    """Those of `PAIRS` that a network has."""
    strides = {f"B{place}": stride for place, stride in enumerate(model.backbone.strides, start=1)}
    levels = {}
    if isinstance(model, SeENet) and model.pyramid is not None:
        levels = {"P2": model.pyramid.P2, "P3": model.pyramid.P3}
    elif isinstance(model, StageProbe) and model.P2 is not None:
        levels = {"P2": model.P2}
    strides |= {name: strides[f"B{name[1]}"] for name in levels}
    branches = {name: len(level.rates) * model.options["width"] for name, level in levels.items() if isinstance(level, SeEM)}
    return [Pair(x, y, (strides[x], strides[y]), branches.get(x, 0)) for x, y in PAIRS if x in strides and y in strides]


def compare(predictor: Predictor, split: Split, pixels: int = PIXELS) -> list[dict[str, Any]]:
    """CKA of each pair over up to `pixels` points of the split, drawn on the coarser stage's grid (y's: strides do not fall).

    Holds one picture's features and the second moments of each pair's channels.
    """
    pairs, sizes = pairs_of(predictor.model), [_size(split, index) for index in range(len(split))]
    grids = {pair.strides[1] for pair in pairs}
    drawn = {stride: draw_points([ceil(h / stride) * ceil(w / stride) for h, w in sizes], pixels) for stride in grids}
    moments: dict[Pair, tuple[Moments, int]] = {}
    wanted = [index for index in range(len(split)) if any(len(points[index]) for points in drawn.values())]
    for index, read in track(prefetch(wanted, split.image), "gap", len(wanted)):
        features = predictor.features(read.result())
        for pair in pairs:
            x, y = (
                features[name][..., : ceil(sizes[index][0] / stride), : ceil(sizes[index][1] / stride)]
                for name, stride in zip((pair.x, pair.y), pair.strides, strict=True)
            )
            both = torch.cat([pool_to(x, y), y], dim=1)[0].flatten(1).T
            if pair not in moments:
                moments[pair] = Moments(both.shape[1]), x.shape[1]
            moments[pair][0].add(both[torch.from_numpy(drawn[pair.strides[1]][index]).to(both.device)])
    return [entry for pair in pairs for entry in _entries(pair, *moments[pair])]


def _size(split: Split, index: int) -> tuple[int, int]:
    path = split.paths(index)[0]
    return image_size(path) if path is not None else (split.image(index).shape[0], split.image(index).shape[1])


def _entries(pair: Pair, moments: Moments, channels: int) -> list[dict[str, Any]]:
    """What gap.json says of a pair; where x is enhanced by SeEM, once more of its branches alone."""
    scatter = moments.scatter
    x, y = slice(0, channels), slice(channels, len(scatter))
    if moments.count < 2 * max(channels, len(scatter) - channels):
        log.warning(
            "%s and %s: %d points are few for %d channels, which makes any CKA high; take more", pair.x, pair.y, moments.count, len(scatter)
        )
    parts = {"after" if pair.x in {"P2", "P3"} else "before": x}
    if pair.branches:
        parts["branches"] = slice(channels - pair.branches, channels)
    entries = []
    for kind, part in parts.items():
        cka = linear_cka(scatter, part, y)
        if not isfinite(cka):
            raise NotFiniteError(f"{pair.x} and {pair.y}: CKA is {cka}, since a stage is NaN or does not vary; its weights are damaged")
        sizes = [part.stop - part.start, y.stop - y.start]
        names = ["EB2" if pair.x == "P2" else pair.x, pair.y]
        entries.append({"stages": names, "kind": kind, "cka": cka, "channels": sizes, "stride": pair.strides[1], "pixels": moments.count})
    return entries
