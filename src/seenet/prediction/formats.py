"""The formats of exported models, a row each: for those that write them, load them, or know them by their suffix.

A format is written by `seenet.export.NAME.write`, and loaded by its opener in `runtimes`.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BundleFormat:
    """What is known of a format without a package of its runtime."""

    suffix: str
    runs_with: tuple[str, ...]
    """Packages that load and run it."""
    written_with: tuple[str, ...] = ()
    """Packages that write it, besides torch."""
    precisions: tuple[str, ...] = ("fp32",)
    """What it can be asked to compute in."""
    weights: str | None = None
    """Suffix of a second file, which holds the weights."""
    options: frozenset[str] = frozenset()
    """Those of `seenet export` that it takes."""


BUNDLE_FORMATS = {
    "onnx": BundleFormat(
        ".onnx", ("onnx", "onnxruntime"), ("onnx", "onnxscript"), options=frozenset({"--int8", "--plain"})
    ),
    "openvino": BundleFormat(
        # It reads the network by way of ONNX.
        ".xml", ("openvino",), ("onnx", "onnxscript"), ("fp32", "bf16"), ".bin", frozenset({"--int8", "--fp16", "--plain"})
    ),
    "torch": BundleFormat(".pt2", ("torch",)),
}  # fmt: skip


def format_of(path: Path) -> BundleFormat:
    """Return the format of a bundle by its suffix. KeyError for any other."""
    return next(row for row in BUNDLE_FORMATS.values() if row.suffix == path.suffix)


def bundle_files(path: Path) -> list[Path]:
    """Return the one or two files of the bundle at `path`, the one that is loaded last."""
    weights = format_of(path).weights
    return [*([path.with_suffix(weights)] if weights else []), path]


def check_path(path: Path) -> Path:
    """Return where the table of a bundle's verification lies."""
    return path.with_name(f"{path.name}.check.json")
