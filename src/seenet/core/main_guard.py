"""Refuse to start processes from a script that lacks `if __name__ == "__main__":`."""

import ast
import multiprocessing
import sys
import traceback
from pathlib import Path

from seenet.core.errors import UsageError

GUARD_NAMES = {"__name__", "parent_process", "current_process"}
"""Names by which a script tests whether a new process runs it again."""


def check_main_guard(otherwise: str, method: str | None = None) -> None:
    """Check that a process started now would not run the calling script up to this very call.

    Unless processes are forked, multiprocessing imports the main script in each of them. A script
    without `if __name__ == "__main__":` would come here again, and end with one traceback per
    process.

    Args:
        otherwise: what the user can do instead of adding the guard.
        method: start method of the processes; None for the default.

    Raises:
        UsageError: it would.
    """
    # get_start_method() would set the default for good, and the script could no longer choose.
    method = (
        method
        or multiprocessing.get_start_method(allow_none=True)
        or multiprocessing.get_all_start_methods()[0]
    )
    place = "" if method == "fork" else _unguarded_call()
    if place:
        raise UsageError(
            f'{place}: needs `if __name__ == "__main__":` around it, since each process that is '
            f"started here ({method}) runs this file again; or {otherwise}"
        )


def _unguarded_call() -> str:
    """Return file and line of the main script that led here; "" if a guard protects that line."""
    main = sys.modules["__main__"]
    name, path = getattr(main.__spec__, "name", ""), getattr(main, "__file__", None)
    # New processes run neither an interactive session nor a package's own `__main__`.
    if path is None or name.endswith(".__main__"):
        return ""
    lines = (
        line
        for frame, line in traceback.walk_stack(None)
        if frame.f_globals is vars(main) and frame.f_code.co_name == "<module>"
    )
    line = next(lines, None)
    if line is None:
        return ""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    guards = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        and node.lineno <= line
        and GUARD_NAMES
        & {getattr(part, "id", getattr(part, "attr", "")) for part in ast.walk(node.test)}
    ]
    # Either the call is inside the guard, or the guard exits in a process that runs the script
    # again.
    guarded = any(
        line <= (node.end_lineno or line) or any(map(_exits, node.body + node.orelse))
        for node in guards
    )
    return "" if guarded else f"{path}, line {line}"


def _exits(statement: ast.stmt) -> bool:
    """Return whether a statement leaves the script: `raise`, `sys.exit()`, `os._exit(0)`."""
    called = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(statement, ast.Raise) or (
        isinstance(called, ast.Call) and "exit" in ast.unparse(called.func)
    )
