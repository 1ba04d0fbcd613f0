"""Semantic gap: linear CKA between the features of two stages, before and after enhancement."""

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
from seenet.core.files import check_free, write_text
from seenet.core.progress import track
from seenet.data import Split, open_split
from seenet.data.split import reader_of
from seenet.evaluation.pictures import png_bytes
from seenet.evaluation.run import data_settings, default_out
from seenet.experiments.drawing import model_names, plot_of, write_figure
from seenet.experiments.probe import find_model_with_stages
from seenet.model.seenet import SeEM, pool_to
from seenet.prediction.batch import prefetch
from seenet.prediction.loading import load_trained
from seenet.prediction.predictor import Predictor

log = logging.getLogger("seenet")

RESULT, FIGURE = "gap.json", "gap.png"
PIXELS = 20_000
PAIRS = (("B2", "B3"), ("P2", "B3"), ("B3", "B4"), ("P3", "B4"))
"""Neighbouring stages before and after enhancement (docs/probes.md); results call P2 EB2."""
RULE = (
    "linear CKA ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F) (Kornblith et al., ICML 2019) of centred "
    "features at the coarser stage's grid, the finer average-pooled to it, in float64; branches: "
    "the channels of P2 and P3 behind their input alone"
)
SEED = 0
KINDS = {
    "before": "before enhancement",
    "after": "after enhancement",
    "branches": "the branches of SeEM alone",
}


@dataclass(frozen=True)
class Pair:
    """Two stages of a model that are compared."""

    x: str
    y: str
    strides: tuple[int, int]
    """Stride of each stage's grid."""
    branches: int
    """Number of x's last channels that are SeEM's branches."""


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
    """Compare the stages of a model on a split; return the content of gap.json and its folder.

    Args:
        model: run folder, .safetensors file or bundled name.
        recipe, overrides, split: which data, as for `run_evaluation`.
        pixels: number of points that are drawn from the split.
        device: auto, cpu, cuda or mps.
        out: folder of gap.json and gap.png; None: `gap/SPLIT` in the model's run, or
            `gaps/MODEL-SPLIT` without a run.
        overwrite: replace results.
        command: quoted by the result.

    Raises:
        UsageError: wrong settings, or a network whose stages are not known.
        DataError: no such model or data, or results exist.
        NotFiniteError: a stage is NaN or does not vary.
    """
    if pixels < 2:
        raise UsageError(f"--pixels {pixels}: expected at least 2")
    path = find_model_with_stages(model)
    settings = data_settings(path, recipe, list(overrides))
    which = split or settings.val or "val"
    folder = out or default_out(path, which, "gap", "gaps")
    check_free([folder / RESULT, folder / FIGURE], overwrite=overwrite)
    opened = open_split(settings, which)
    predictor = load_trained(path, device)
    data, _, name = opened.name.partition("/")
    result = {
        "pairs": compare(predictor, opened, pixels),
        "rule": RULE,
        "pixels": pixels,
        "seed": SEED,
        "data": data,
        "split": name,
        "images": len(opened),
        "labels": opened.labels.name,
        "ignore_rule": "labels are not looked at: points are drawn from whole pictures",
        "size_rule": "pictures at their own size; points of a grid beyond the picture (padding) "
        "are left out",
        **predictor.settings,
        "model": predictor.info,
        "version": seenet.__version__,
        "command": command,
    }
    write_figure(folder / FIGURE, figure(result))
    # Last: where there is a result file everything is there.
    write_text(folder / RESULT, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return result, folder


def pairs_of(model: Any) -> list[Pair]:
    """Return those of `PAIRS` that a network has."""
    strides = {f"B{place}": stride for place, stride in enumerate(model.backbone.strides, start=1)}
    levels = {
        path[-2:]: module
        for path, module in model.named_modules()
        if path.removeprefix("pyramid.") in {"P2", "P3"}
    }
    strides |= {name: strides[f"B{name[1]}"] for name in levels}
    branches = {
        name: len(level.rates) * model.options["width"]
        for name, level in levels.items()
        if isinstance(level, SeEM)
    }
    return [
        Pair(x, y, (strides[x], strides[y]), branches.get(x, 0))
        for x, y in PAIRS
        if x in strides and y in strides
    ]


def draw_points(points: Sequence[int], count: int) -> list[np.ndarray]:
    """Draw `count` of all grid points without replacement, or all where there are fewer.

    Args:
        points: number of points in each picture.
        count: number of points to draw.

    Returns:
        Ascending indices for each picture. They depend on the arguments alone.
    """
    ends = np.cumsum(points)
    chosen = np.random.default_rng(SEED).choice(ends[-1], min(count, ends[-1]), replace=False)
    chosen.sort()
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    return [part - start for part, start in zip(parts, ends - np.asarray(points), strict=True)]


class Moments:
    """Count, mean and centred second moments (C x C, float64) of rows that come in batches, n x C.

    Source: Chan, Golub, LeVeque 1983.
    """

    BATCH = 1024
    """Rows that are added at once: each addition walks through C x C, however few rows it has."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self._scatter = torch.zeros(channels, channels, dtype=torch.float64)
        self._pending: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Add rows n x C of any floating type, on any device."""
        self._pending.append(rows.detach().cpu().double())
        if sum(map(len, self._pending)) >= self.BATCH:
            self._flush()

    @property
    def scatter(self) -> Tensor:
        """Return the sum over all rows of (row - mean)' (row - mean)."""
        self._flush()
        return self._scatter

    def _flush(self) -> None:
        if not sum(map(len, self._pending)):
            return
        rows, self._pending = torch.cat(self._pending), []
        mean, total = rows.mean(0), self.count + len(rows)
        centred, shift = rows - mean, mean - self.mean
        self._scatter.addmm_(centred.T, centred).addr_(
            shift, shift, alpha=self.count * len(rows) / total
        )
        self.mean += shift * (len(rows) / total)
        self.count = total


def linear_cka(scatter: Tensor, x: slice, y: slice) -> float:
    """Return ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F) of two ranges of channels.

    It is NaN where one of them does not vary.

    Source: Kornblith et al., ICML 2019.
    """
    cross, own, other = (
        torch.linalg.matrix_norm(scatter[a, b]) for a, b in ((y, x), (x, x), (y, y))
    )
    return float(cross**2 / (own * other))


def compare(predictor: Predictor, split: Split, pixels: int = PIXELS) -> list[dict[str, Any]]:
    """Return the CKA of each pair over up to `pixels` points, drawn on the coarser stage's grid.

    In memory at a time: one picture's features and the second moments of each pair's channels.
    """
    pairs, sizes = pairs_of(predictor.model), [_size(split, index) for index in range(len(split))]
    drawn = {
        stride: draw_points([ceil(h / stride) * ceil(w / stride) for h, w in sizes], pixels)
        for stride in {pair.strides[1] for pair in pairs}
    }
    moments: dict[Pair, tuple[Moments, int]] = {}
    wanted = [i for i in range(len(split)) if any(len(points[i]) for points in drawn.values())]
    for index, read in track(prefetch(wanted, split.image), "gap", len(wanted)):
        features = predictor.features(read.result())
        height, width = sizes[index]
        for pair in pairs:
            # Without the grid points of the padding.
            x, y = (
                features[name][..., : ceil(height / stride), : ceil(width / stride)]
                for name, stride in zip((pair.x, pair.y), pair.strides, strict=True)
            )
            both = torch.cat([pool_to(x, y), y], dim=1)[0].flatten(1).T
            points = torch.from_numpy(drawn[pair.strides[1]][index]).to(both.device)
            if pair not in moments:
                moments[pair] = Moments(both.shape[1]), x.shape[1]
            moments[pair][0].add(both[points])
    return [entry for pair in pairs for entry in _entries(pair, *moments[pair])]


def _size(split: Split, index: int) -> tuple[int, ...]:
    path = split.paths(index)[0]
    return split.image(index).shape[:2] if path is None else reader_of(split).size(path)


def _entries(pair: Pair, moments: Moments, channels: int) -> list[dict[str, Any]]:
    """Return the entries of a pair in gap.json; x is the first `channels` channels."""
    scatter = moments.scatter
    y = slice(channels, len(scatter))
    if moments.count < 2 * max(channels, len(scatter) - channels):
        log.warning(
            "%s and %s: %d points are few for %d channels, which makes any CKA high; take more",
            pair.x,
            pair.y,
            moments.count,
            len(scatter),
        )
    parts = {"after" if pair.x in {"P2", "P3"} else "before": slice(0, channels)}
    if pair.branches:
        parts["branches"] = slice(channels - pair.branches, channels)
    entries = []
    for kind, x in parts.items():
        cka = linear_cka(scatter, x, y)
        if not isfinite(cka):
            raise NotFiniteError(
                f"{pair.x} and {pair.y}: CKA is {cka}, since a stage is NaN or does not vary; "
                "its weights are damaged"
            )
        entries.append(
            {
                "stages": ["EB2" if pair.x == "P2" else pair.x, pair.y],
                "kind": kind,
                "cka": cka,
                "channels": [x.stop - x.start, y.stop - y.start],
                "stride": pair.strides[1],
                "pixels": moments.count,
            }
        )
    return entries


def lines(result: dict[str, Any]) -> list[str]:
    """Return a line for each pair."""
    return [
        f"{_name(entry):<22} {entry['cka']:.3f}  {KINDS[entry['kind']]}"
        for entry in result["pairs"]
    ]


def _name(entry: dict[str, Any]) -> str:
    x, y = entry["stages"]
    return f"{x}{' branches' if entry['kind'] == 'branches' else ''} and {y}"


def figure(result: dict[str, Any]) -> bytes:
    """Draw a group of bars for each stage y: before, after, the branches alone; return a PNG."""
    colours = {"before": "#999999", "after": "#0072b2", "branches": "#e69f00"}
    image, axes = plot_of(6.6, 4.2)
    entries = result["pairs"]
    kinds = [entry["kind"] for entry in entries]
    # The groups are a bar's width apart.
    places = [place + (entry["stages"][1] == "B4") for place, entry in enumerate(entries)]
    bars = axes.bar(
        places,
        [entry["cka"] for entry in entries],
        color=[colours[kind] for kind in kinds],
        # Each kind is named once in the legend.
        label=[KINDS[kind] if kind not in kinds[:i] else "_" for i, kind in enumerate(kinds)],
    )
    axes.bar_label(bars, fmt="%.3f", padding=2, fontsize=9)
    names = [_name(entry).replace(" and ", "\nand ") for entry in entries]
    axes.set_xticks(places, names, fontsize=9)
    axes.set(ylim=(0, 1.08), ylabel="linear CKA (1: alike)")
    (name,) = model_names([Path(result["model"]["file"])], [""])
    points = " and ".join(f"{n:,}" for n in dict.fromkeys(entry["pixels"] for entry in entries))
    title = f"{name} on {result['data']}/{result['split']}, {points} points"
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False, fontsize=9)
    return png_bytes(image)
