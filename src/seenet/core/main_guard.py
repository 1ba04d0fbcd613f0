"""A script that other processes run again when they start must say what is for the first one alone."""

import ast
import inspect
import multiprocessing
import sys
from pathlib import Path

from seenet.core.errors import UsageError

ASKING = {"__name__", "parent_process", "current_process"}
"""By these a script tells whether it is run again."""


def check_main_guard(otherwise: str, method: str | None = None) -> None:
    """UsageError where processes that are started now would run the calling script again up to this very call.

    Where they are not forked, multiprocessing imports the main script in each of them; one without `if __name__ == "__main__":` comes here
    again there, and ends with a traceback a process. `otherwise`: what else than the guard helps. `method`: of starting; None: the usual.
    """
    # Asking for it in the shorter way would settle it, and the script could choose no more.
    method = method or multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    place = None if method == "fork" else _unguarded()
    if place:
        raise UsageError(
            f'{place}: needs `if __name__ == "__main__":` around it, since each process that is started here ({method}) runs this file '
            f"again; or {otherwise}"
        )


def _unguarded() -> str:
    """File and line of the main script that led here, if nothing before that line asks whether it is run again; else ""."""
    main = sys.modules["__main__"]
    name, path = getattr(main.__spec__, "name", ""), getattr(main, "__file__", None)
    # Not run again: what is typed, and a package's own `__main__`.
    if path is None or name.endswith(".__main__"):
        return ""
    frame = inspect.currentframe()
    while frame and not (frame.f_globals is vars(main) and frame.f_code.co_name == "<module>"):
        frame = frame.f_back
    if frame is None:
        return ""
    line = frame.f_lineno
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and _asks(node.test) and node.lineno <= line]
    # Either the call is within the guard, or the guard ends whoever runs the script again.
    guarded = any(line <= (node.end_lineno or line) or any(map(_ends, node.body + node.orelse)) for node in guards)
    return "" if guarded else f"{path}, line {line}"


def _asks(test: ast.expr) -> bool:
    return bool(ASKING & {ast.unparse(part).rpartition(".")[2] for part in ast.walk(test) if isinstance(part, ast.expr)})


def _ends(statement: ast.stmt) -> bool:
    """Tell whether a statement leaves the script: `raise`, `sys.exit()`, `exit()`, `os._exit(0)`."""
    called = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(statement, ast.Raise) or (isinstance(called, ast.Call) and "exit" in ast.unparse(called.func))
