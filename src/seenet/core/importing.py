"""Code of the user's, named in a setting as `package.module:callable`."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seenet.core.errors import UsageError


def load_callable(name: str, setting: str, signature: str) -> Callable[..., Any]:
    """Import what `setting` names; UsageError where it cannot be imported or called. `signature` says how it will be called."""
    module, _, attribute = name.partition(":")
    # The working folder is on the path of `python -m seenet`, not on that of `seenet`; last, so that it hides no package.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{setting}={name}: cannot be imported ({error}); expected package.module:callable, in this folder or PYTHONPATH"
        ) from None
    if not callable(found):
        raise UsageError(f"{setting}={name}: not callable; expected a function of {signature}")
    result: Callable[..., Any] = found
    return result
