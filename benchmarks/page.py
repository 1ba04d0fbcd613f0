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

`python -m benchmarks.page` writes this page from the files in `benchmarks/results/KIND`.
`make bench` (within 45 minutes on two slow cores) and `make bench-full` (hours) write these files.
Both resume after an interruption. Each kind of processor has its own section, because the ratios
of one kind say nothing about another.

## How it is measured

- **Networks**: SeENet is compared with torchvision's DeepLabv3 (rates 12, 24, 36 at output stride
  8) and with segmentation-models-pytorch's DeepLabv3+. All have the same timm backbone, output
  stride, input, precision and runtime, 21 classes and random weights.
- **How they run**: SeENet runs as its trainer, predictor and exporter run it. The others run as
  their users run them (channels-last, `inference_mode`), and are exported as torch exports them.
  SeENet's exporter writes some convolutions as matrix products ([deploy.md](deploy.md));
  it would do the same in the other networks.
- **lite0**: SeENet has the options LIGHT in `benchmarks/contestants.py`.
  `python -m benchmarks.equal_time` measures what SeENet and DeepLabv3+ reach on lite0 after equal
  training time.

## Columns and lines

- **found**: images/s of SeENet divided by those of DeepLabv3 (on lite0 by those of DeepLabv3+).
  The networks take turns in one process. The ratio is the median over rounds, with quartiles.
- **DeepLabv3+**: its own ratio over DeepLabv3.
- **bar**, **met**: the limit for the number, and whether it holds.
- **GFLOP**: of SeENet's plain forward pass, per image.
- **MiB**: what the first pass of SeENet adds to the resident memory of the process.
- **of matmul**: SeENet's arithmetic per second, divided by that of a product of two 2048 x 2048
  matrices measured in the same rounds. A training step counts as three forward passes. A form that
  needs less arithmetic than the plain network may exceed 100 %.
- ***loaded***: other processes used over 5 % of the machine's processor time during the
  measurement.
- **Line 4**: memory of each network in its own process, with everything loaded. Training is two
  steps (4 crops of 320). Its value is the median of three processes, which differ because of gaps
  in the allocator's memory. Prediction is one picture, from bytes to classes.
- **Line 8**: how time and memory of ResNet-18 grow. The picture is 512 x 512, except where the
  size grows. Batches are the logits of so many pictures at once. Everything else is
  `Predictor.mask`. With two processes, each has half of the threads.
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
