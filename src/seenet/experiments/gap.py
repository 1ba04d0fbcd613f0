"""The semantic gap: how alike two stages' features are, before and after enhancement (`seenet figure gap`).

The measure is linear CKA over points drawn from a split; the figure has a bar for each pair of stages.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import seenet
from seenet.core.errors import NotFiniteError, UsageError
from seenet.core.files import check_free, replacing, write_text
from seenet.core.images import image_size
from seenet.core.progress import track
from seenet.data import Split, open_split
from seenet.evaluation.pictures import png_bytes
from seenet.evaluation.run import data_settings, default_out
from seenet.experiments.drawing import model_names, plot_of
from seenet.experiments.probe import with_stages
from seenet.model import SeENet, StageProbe
from seenet.model.seenet import SeEM, pool_to
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
SEED = 0
KINDS = {"before": "before enhancement", "after": "after enhancement", "branches": "the branches of SeEM alone"}


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


def draw_points(points: Sequence[int], count: int) -> list[np.ndarray]:
    """Of pictures with so many grid points each, `count` points drawn from all without replacement, seed 0: rising indices a picture.

    All of them where there are no more. It depends on the arguments alone.
    """
    ends = np.cumsum(points)
    chosen = np.random.default_rng(SEED).choice(ends[-1], min(count, ends[-1]), replace=False)
    chosen.sort()
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    return [part - start for part, start in zip(parts, ends - np.asarray(points), strict=True)]


class Moments:
    """Count, mean and centred second moments, C x C float64, of rows that come in parts, n x C (Chan, Golub, LeVeque 1983)."""

    PART = 1024
    """Rows that are taken up at once: C x C is walked through each time, however few they are."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self._scatter = torch.zeros(channels, channels, dtype=torch.float64)
        self._waiting: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Take rows n x C, of any floating type, from any device."""
        self._waiting.append(rows.detach().cpu().double())
        if sum(map(len, self._waiting)) >= self.PART:
            self._take()

    @property
    def scatter(self) -> Tensor:
        """Sum over all rows of (row - mean)' (row - mean)."""
        self._take()
        return self._scatter

    def _take(self) -> None:
        if not sum(map(len, self._waiting)):
            return
        rows, self._waiting = torch.cat(self._waiting), []
        mean, total = rows.mean(0), self.count + len(rows)
        centred, apart = rows - mean, mean - self.mean
        self._scatter.addmm_(centred.T, centred).addr_(apart, apart, alpha=self.count * len(rows) / total)
        self.mean += apart * (len(rows) / total)
        self.count = total


def linear_cka(scatter: Tensor, x: slice, y: slice) -> float:
    """||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F) of two ranges of channels (Kornblith et al., ICML 2019); NaN where one does not vary."""
    cross, own, other = (torch.linalg.matrix_norm(scatter[a, b]) for a, b in ((y, x), (x, x), (y, y)))
    return float(cross**2 / (own * other))


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


def lines(result: dict[str, Any]) -> list[str]:
    """For people, a pair a line."""
    return [f"{_name(entry):<22} {entry['cka']:.3f}  {KINDS[entry['kind']]}" for entry in result["pairs"]]


def _name(entry: dict[str, Any]) -> str:
    return f"{entry['stages'][0]}{' branches' if entry['kind'] == 'branches' else ''} and {entry['stages'][1]}"


def figure(result: dict[str, Any]) -> bytes:
    """PNG: a group of bars for each stage that is compared with, before and after enhancement and the branches alone."""
    colours = {"before": "#999999", "after": "#0072b2", "branches": "#e69f00"}
    image, axes = plot_of(6.6, 4.2)
    entries = result["pairs"]
    # A bar's width of room between the groups.
    places = [place + (entry["stages"][1] == "B4") for place, entry in enumerate(entries)]
    for kind, colour in colours.items():
        chosen = [(place, entry["cka"]) for place, entry in zip(places, entries, strict=True) if entry["kind"] == kind]
        if chosen:
            bars = axes.bar([place for place, _ in chosen], [cka for _, cka in chosen], color=colour, label=KINDS[kind])
            axes.bar_label(bars, fmt="%.3f", padding=2, fontsize=9)
    axes.set_xticks(places, [_name(entry).replace(" and ", "\nand ") for entry in entries], fontsize=9)
    axes.set_ylim(0, 1.08)
    axes.set_ylabel("linear CKA (1: alike)")
    model = Path(result["model"]["file"])
    (name,) = model_names([model], [str(model)])
    points = " and ".join(f"{count:,}" for count in dict.fromkeys(entry["pixels"] for entry in entries))
    axes.set_title(f"{name} on {result['data']}/{result['split']}, {points} points", fontsize=10, loc="left", parse_math=False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False, fontsize=9)
    return png_bytes(image)
