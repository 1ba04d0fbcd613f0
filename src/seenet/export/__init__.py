"""Models as files for other programs; `seenet.export(...)` does what `seenet export` does."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """This package, which is also the function of its name: both are `seenet.export`."""

    def __call__(
        self, model: str | Path, out: str | Path, kind: Any = "onnx", **options: Any
    ) -> dict[str, Any]:
        """Write a bundle and return what was checked; kind, options, errors as `run_export`."""
        from seenet.export.run import run_export

        return run_export(model, Path(out), kind, **options).result()


sys.modules[__name__].__class__ = _Callable
