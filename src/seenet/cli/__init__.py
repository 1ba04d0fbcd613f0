"""The command line: one file per command; an error becomes one line and an exit code."""

import errno
import io
import logging
import os
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from seenet.core.errors import SeenetError, Terminated, nearest

SYSTEM_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO
)  # fmt: skip
"""Errors of a disk or its permissions, which are no bug wherever they occur."""

COMMANDS = {
    "demo": ("demo:demo", "Segment photographs, then train and evaluate a small network."),
    "train": ("train:train", "Train a recipe, or continue a run."),
    "eval": ("eval:eval_", "Score a model: per-class table, result.json, confusion matrix."),
    "predict": ("predict:predict", "Segment images: files, folders, patterns."),
    "ablate": ("ablate:app", "Train variants with several seeds and compare them."),
    "probe": ("probe:probe", "Train a small classifier on each stage of a network (Table 2)."),
    "report": ("report:report", "Write the HTML page of a run."),
    "export": ("export:export", "Export a model to a file for other programs."),
    "figure": ("figure:app", "Draw the paper's figures for your own runs."),
    "model": ("model:model", "List the parts of a network: shapes, parameters and FLOPs."),
    "data": ("data:app", "Describe your own data, and inspect any data set."),
    "submit": ("submit:app", "Pack predictions for the servers of VOC and Cityscapes."),
    "import": ("import_:import_", "Convert a pickled .pth file to .safetensors."),
    "schema": ("schema:schema", "Print the JSON schema of recipes, for editors."),
}
"""Module and attribute of each command, and its line in `seenet --help`.

The module is imported when the command is called, so that `seenet --help` is fast.
"""


class LazyGroup(TyperGroup):
    """Group that lists commands without importing them.

    Contexts and formatters are Any, since typer does not publish their types.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:
        if cmd_name not in COMMANDS:
            return None
        place, line = COMMANDS[cmd_name]
        module, _, attribute = place.partition(":")
        target = getattr(import_module(f"seenet.cli.{module}"), attribute)
        if not isinstance(target, typer.Typer):
            function = target
            target = typer.Typer(add_completion=False, rich_markup_mode=None)
            target.command()(function)
        command = get_command(target)
        assert isinstance(command, TyperCommand | TyperGroup)
        command.name, command.short_help = cmd_name, line
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"{args[0]}: unknown command; {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=LazyGroup, add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback(invoke_without_command=True)
def seenet(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    """Train, evaluate and run SeENet. `--debug` adds the traceback to an error."""
    if version:
        from seenet import __version__

        print(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run a command line and exit with its code.

    0 done, 1 a bug, 2 usage, 3 some inputs failed, 4 data or file, 5 not finite, 6 a check failed,
    75 busy or a process lost, 130 Ctrl-C, 143 SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("seenet")
    log.setLevel(logging.INFO)
    log.handlers = [handler]
    # Pillow warns of damaged tags, which are not used here, and of sizes, which have a limit here.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names that are not UTF-8 are printed as JSON writes them.
        sys.stdout.reconfigure(errors="backslashreplace")
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run(arguments, debug)
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.exit(code)


def _terminate(*_: object) -> None:
    raise Terminated


def _run(arguments: list[str], debug: bool) -> int:
    try:
        code: Any = get_command(app).main(arguments, prog_name="seenet", standalone_mode=False)
        # Flushed here, where a full disk or a closed pipe is handled.
        if sys.stdout is not None:
            sys.stdout.flush()
        # typer returns 130 for a KeyboardInterrupt.
        return _fail("interrupted", 130) if code == 130 else int(code or 0)
    except SeenetError as error:
        if debug:
            traceback.print_exc()
        return _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        return _fail(f"{error.format_message()} (seenet --help)", 2)
    except Terminated as error:
        return _fail("terminated", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except (BrokenPipeError, SystemExit) as error:
        # typer turns a BrokenPipeError into a SystemExit.
        if BrokenPipeError not in (type(error), type(error.__context__)):
            raise
        # The reader of the output has gone, such as `head`.
        _discard_stdout()
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """Report an error that nothing else handled, as one line; return the exit code.

    The code is 4 for an error of a disk or its permissions, else 1: for lack of memory, and for a
    bug, whose traceback is kept in a temporary file.
    """
    import tempfile

    from seenet.core.processor import lacks_memory

    what = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in SYSTEM_ERRORS:
        if error.filename is None:
            _discard_stdout()
        path = error.filename or "an output"
        return _fail(f"{path}: cannot be written or read ({error.strerror})", 4)
    if lacks_memory(error):
        return _fail(
            f"out of memory ({what[:120]}); use a smaller crop, batch or image, or --tile auto", 1
        )
    with tempfile.NamedTemporaryFile("w", prefix="seenet-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    return _fail(f"a bug: {type(error).__name__}: {what[:200]}; the traceback is in {file.name}", 1)


def _discard_stdout() -> None:
    """Send stdout to nowhere, so that flushing its buffer at exit does not fail again."""
    with suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    print(f"seenet: {message}", file=sys.stderr)
    return code
