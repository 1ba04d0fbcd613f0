"""The formats of exported models, one row each, for those that write, load or recognise them.

A format is written by `seenet.export.NAME.write` and, if it is read here, loaded by its opener in
`runtimes`.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BundleFormat:
    """Facts about a format that are known without a package of its runtime."""

    suffix: str
    runs_with: tuple[str, ...]
    """Packages that load and run it."""
    written_with: tuple[str, ...] = ()
    """Packages that write it, besides torch."""
    precisions: tuple[str, ...] = ("fp32",)
    """Number formats that it can compute in."""
    weights: str | None = None
    """Suffix of a second file, which holds the weights."""
    options: frozenset[str] = frozenset()
    """Options of `seenet export` that it takes."""
    read: bool = True
    """`seenet predict` and `eval` read it; otherwise it is for other programs."""


BUNDLE_FORMATS = {
    "onnx": BundleFormat(
        ".onnx",
        ("onnx", "onnxruntime"),
        ("onnx", "onnxscript"),
        options=frozenset({"--int8", "--plain"}),
    ),
    "openvino": BundleFormat(
        ".xml",
        ("openvino",),
        # It gets the network by way of ONNX.
        ("onnx", "onnxscript"),
        ("fp32", "bf16"),
        ".bin",
        frozenset({"--int8", "--fp16", "--plain"}),
    ),
    "torch": BundleFormat(".pt2", ("torch",), read=False),
}


def format_of(path: Path) -> BundleFormat:
    """Return the format of a bundle by its suffix; raise KeyError for another suffix."""
    return {row.suffix: row for row in BUNDLE_FORMATS.values()}[path.suffix]


def bundle_files(path: Path) -> list[Path]:
    """Return the one or two files of the bundle at `path`; `path` itself is the last."""
    weights = format_of(path).weights
    return [*([path.with_suffix(weights)] if weights else []), path]


def check_path(path: Path) -> Path:
    """Return the path of the table of a bundle's verification."""
    return path.with_name(f"{path.name}.check.json")
