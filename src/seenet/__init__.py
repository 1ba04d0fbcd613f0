"""SeENet: train, evaluate, explain and run the segmentation network of Pang et al., ICCV 2019."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("seenet")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+source"

_WHERE = {
    "create_model": "seenet.model",
    "load": "seenet.prediction.loading",
    "Result": "seenet.prediction.result",
    "train": "seenet.api",
    "evaluate": "seenet.api",
}

__all__ = ["Result", "__version__", "create_model", "evaluate", "export", "load", "train"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is: `import seenet` alone does not import torch."""
    if name == "export":
        return import_module("seenet.export")
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'seenet' has no attribute {name!r}")
