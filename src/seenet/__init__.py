"""SeENet: train, evaluate, explain and run the segmentation network of Pang et al., ICCV 2019."""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

_MODULES = {
    "create_model": "seenet.model",
    "load": "seenet.prediction.loading",
    "Result": "seenet.prediction.result",
    "train": "seenet.api",
    "evaluate": "seenet.api",
}

__all__ = ["Result", "__version__", "create_model", "evaluate", "export", "load", "train"]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that `import seenet` does not import torch."""
    if name == "__version__":
        return _version()
    if name == "export":
        return import_module("seenet.export")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'seenet' has no attribute {name!r}")


@cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("seenet")
    except PackageNotFoundError:  # source tree on the path, not installed
        return "0+source"
