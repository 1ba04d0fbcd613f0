"""Write docs/performance.md and its plots from benchmarks/results: `python -m benchmarks.page`."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.bars import HEADER, cells, results
from benchmarks.machine import RESULTS, ROOT
from seenet.core.files import write_text

DOCS = ROOT / "docs"

HEAD = """# Speed and memory, measured

Written by `python -m benchmarks.page` from the files in `benchmarks/results/KIND`, which `make \
bench` (within 45 minutes on two slow
cores) and `make bench-full` (hours) leave there; either goes on where it was interrupted. \
Processors differ, so each kind has its own
section: no ratio of one says anything of another.

- Beside SeENet stand torchvision's DeepLabv3 (rates 12, 24, 36 at output stride 8) and \
segmentation-models-pytorch's DeepLabv3+, on
  the same timm backbone, with the same output stride, input, precision and runtime, 21 classes, \
random weights. SeENet runs as the
  trainer, the predictor and the exporter run it; the others as their users run them \
(channels-last, `inference_mode`), exported as
  torch exports them. What SeENet's exporter writes out as matrix products (docs/deploy.md) it \
would in them as well.
- **found** is SeENet's images/s over DeepLabv3's (on lite0 over DeepLabv3+'s): the contestants \
take turns in one process, and the
  ratio is the median over rounds, with quartiles. **DeepLabv3+** is its own ratio over DeepLabv3.
- **GFLOP** of SeENet's plain forward pass, an image. **MiB**: what the first pass of SeENet adds \
to the resident memory of the
  process. **of matmul**: its arithmetic a second (of a training step three times the forward \
pass), over that of a product of two
  2048 x 2048 matrices measured in the same rounds; a form that needs less arithmetic than the \
plain network may pass 100 %.
- *loaded* marks what was measured while other processes had over 5 % of the machine's processor \
time.
- On lite0, SeENet has the options of `benchmarks/contestants.py` (LIGHT). What it and DeepLabv3+ \
reach there after equal training time
  comes from `python -m benchmarks.equal_time`.
- Line 4 takes each contestant in a process of its own, where everything is loaded: two training \
steps (4 crops of 320; the median of three
  processes, which differ by the allocator's gaps), or a picture from bytes to classes. Line 8, \
growth, is ResNet-18 at 512 x 512, but for
  what grows; batches are scores of so many pictures at once, the rest is `Predictor.mask`; with \
two processes each has half of the threads.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args()
    write(options.results, options.docs)


def write(root: Path, docs: Path) -> None:
    """Write the page of the results in the folders of `root`, with its plots."""
    parts = [HEAD]
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        drawn = plots.draw(results(folder), docs / "images", folder.name)
        parts += section(folder, drawn)
    write_text(docs / "performance.md", "\n".join(parts))


def section(folder: Path, drawn: dict[str, str]) -> Iterator[str]:
    """Yield the Markdown of one kind of CPU.

    Args:
        drawn: Title of each plot, by file name.
    """
    yield from (
        f"## {folder.name}\n",
        "Measured on:\n",
        *machines(results(folder)),
        "",
        *table(folder),
        "",
    )
    for name, title in drawn.items():
        yield from (f"### {title} ({folder.name})\n", f"![{title}](images/{name})\n")


def table(folder: Path) -> Iterator[str]:
    yield f"| {' | '.join(HEADER)} |"
    yield f"|{'---|' * len(HEADER)}"
    for row in cells(folder):
        yield f"| {' | '.join(cell.replace('>=', '≥').replace('<=', '≤') for cell in row)} |"


def machines(found: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for all results of the same machine, code and versions."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in found:
        about = result["provenance"]
        versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
        processor = about["processor"]
        where = (
            f"{processor['name']} ({', '.join(processor['flags'])}; torch: {processor['torch']}), "
            f"{about['threads']} threads"
        )
        groups.setdefault(f"{where}; commit {about['commit']}; {versions}", []).append(result)
    for machine, those in groups.items():
        dates, loads = ([result["provenance"][key] for result in those] for key in ("date", "load"))
        yield (
            f"- {machine}; {len(those)} results from {min(dates)} to {max(dates)}, "
            f"load average before each {min(loads)} to {max(loads)}"
        )


if __name__ == "__main__":
    main()
