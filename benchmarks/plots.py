"""The plots of docs/performance.md."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

Results = list[dict[str, Any]]
OURS, PLUS = "C0", "C7"


def draw(found: Results, folder: Path) -> dict[str, str]:
    """Draw what there are results for; returns the title of each file."""
    drawn = {}
    for name, (title, plot) in PLOTS.items():
        figure = plot(found)
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / name, dpi=110)
            drawn[name] = title
    return drawn


def ratios(found: Results) -> Figure | None:
    """A bar a case: images/s of SeENet and of DeepLabv3+ over DeepLabv3's."""
    cases = [result for result in found if "contestants" in result]
    if not cases:
        return None
    figure = Figure(figsize=(9, 1.2 + 0.3 * len(cases)), layout="constrained")
    axes = figure.subplots()
    for place, result in enumerate(cases):
        for name, shift, colour in (("seenet", 0.2, OURS), ("deeplabv3plus", -0.2, PLUS)):
            ratio = result["contestants"][name]["ratio"]
            errors = [[ratio["median"] - ratio["low"]], [ratio["high"] - ratio["median"]]]
            label = {"seenet": "SeENet", "deeplabv3plus": "DeepLabv3+"}[name] if not place else None
            axes.barh(-place + shift, ratio["median"], 0.38, xerr=errors, color=colour, label=label, error_kw={"elinewidth": 0.8})
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([-place for place in range(len(cases))], [result["name"] for result in cases], fontsize=8)
    axes.set(xlabel="images/s over DeepLabv3's; median and quartiles of the rounds", xlim=(0, None))
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


PLOTS: dict[str, tuple[str, Callable[[Results], Figure | None]]] = {
    "performance-ratios.png": ("Beside DeepLabv3 and DeepLabv3+", ratios),
}
"""Title and plot by file name."""
