"""Curves of a run as inline SVG, which takes its colours from the page (light or dark)."""

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# matplotlib has no CSS variables, so it draws in these colours, which are then replaced.
INK, FAINT, LINE, SECOND = "#010203", "#020304", "#030405", "#040506"
VARIABLES = {INK: "var(--soft)", FAINT: "var(--line)", LINE: "var(--blue)", SECOND: "var(--orange)"}

_TICKS = {"color": INK, "labelsize": 9.5, "major.size": 0}
STYLE: Any = {
    # As wide as a phone, so that the text is not shrunk there.
    "figure.figsize": (4.2, 2.7),
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "grid.color": FAINT,
    **{f"{axis}tick.{name}": value for axis in "xy" for name, value in _TICKS.items()},
    "lines.linewidth": 2,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
}

Points = list[tuple[int, float]]


def points(entries: list[dict[str, Any]], *keys: str) -> Points:
    """List (step, value) of each entry that has a finite number at this path of keys."""
    found = []
    for entry in entries:
        value: Any = entry
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float) and np.isfinite(value):
            found.append((int(entry["step"]), float(value)))
    return found


@rc_context(STYLE)
def curves(entries: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Draw loss, mIoU on val and learning rate, as far as they are recorded: (caption, SVG) each.

    Args:
        entries: lines of metrics.jsonl.
    """
    loss, val_loss = points(entries, "loss"), points(entries, "val", "loss")
    miou = [(step, 100 * value) for step, value in points(entries, "val", "miou")]
    rate = points(entries, "rate")
    drawn = []
    if loss:
        drawn.append(_loss(loss, val_loss))
    if miou:
        drawn.append(_miou(miou))
    if rate:
        drawn.append(_rate(rate))
    return drawn


def running_mean(values: Sequence[float], width: int) -> np.ndarray:
    """Average up to `width` values around each, fewer at the ends; as long as `values`."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, float))])
    places = np.arange(len(values))
    low, high = np.maximum(places - width // 2, 0), np.minimum(places + width // 2 + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _loss(loss: Points, val: Points) -> tuple[str, str]:
    figure, axes = _axes()
    steps, values = zip(*loss, strict=True)
    # More than two thousand points are more than the figure has pixels.
    every = max(1, len(steps) // 2000)
    mean = running_mean(values, max(3, len(values) // 30))
    axes.plot(steps[::every], values[::every], color=LINE, alpha=0.3, linewidth=0.8)
    axes.plot(steps[::every], mean[::every], color=LINE)
    axes.plot([step for step, _ in val], [value for _, value in val], "o", color=SECOND, ms=4)
    # The quantile keeps a few large losses at the start from flattening the rest.
    shown = np.concatenate([values, [value for _, value in val]])
    axes.set_ylim(0, 1.08 * max(float(np.quantile(shown, 0.99)), 1e-6))
    dots = "; dots: validation loss" if val else ""
    caption = f"Training loss: each step faint, running mean strong{dots}."
    return caption, _svg(figure, "loss")


def _miou(miou: Points) -> tuple[str, str]:
    figure, axes = _axes()
    best = max(miou, key=lambda point: point[1])
    axes.plot(*zip(*miou, strict=True), "o-", color=LINE, markersize=3.5)
    axes.plot(*best, "o", color=SECOND, markersize=8, fillstyle="none", markeredgewidth=2)
    axes.set_ylim(0, min(100, max(10, 1.15 * best[1])))
    axes.set_xlim(left=0)
    caption = f"mIoU on val, percent. Best: {best[1]:.1f} % at step {best[0]:,}."
    return caption, _svg(figure, "miou")


def _rate(rate: Points) -> tuple[str, str]:
    figure, axes = _axes()
    axes.plot(*zip(*rate, strict=True), color=LINE)
    axes.set_ylim(0, None)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=False)
    highest = max(value for _, value in rate)
    return f"Learning rate of the backbone. Highest: {highest:.3g}.", _svg(figure, "rate")


def _axes() -> tuple[Figure, Any]:
    figure = Figure()
    axes = figure.add_subplot(xlabel="step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


def _svg(figure: Figure, name: str) -> str:
    """Return the figure as an <svg> element with text as text and no external reference."""
    stream = io.StringIO()
    with rc_context({"svg.hashsalt": name, "svg.id": f"curve-{name}"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})  # type: ignore[no-untyped-call]
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # matplotlib's ids are unique within a figure, not within a page.
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(
        r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 role="img" focusable="false">', text
    )
    # The page sets the font family.
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text
