"""The command line: one file a command, no logic; errors become one line and the contract's exit code."""

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

REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What a disk or its permissions say, wherever in the code: no bug."""

# Command -> module, function, and the line `--help` shows: a command's module is imported when it is called.
COMMANDS = {
    "demo": ("demo", "demo", "See it work: photographs, then a small network trained from start to report."),
    "train": ("train", "train", "Train a recipe, or go on with a run."),
    "eval": ("eval", "eval_", "Score a model: per-class table, result.json, confusion matrix."),
    "predict": ("predict", "predict", "Segment pictures: files, folders, globs."),
    "ablate": ("ablate", "app", "Train rows of Table 1, peers or any grid with several seeds, and compare."),
    "probe": ("probe", "probe", "Train a small classifier on each stage of a trained network (Table 2)."),
    "report": ("report", "report", "Write a run's page: curves, scores, worst and best pictures."),
    "export": ("export", "export", "Write a model as a file for others to use."),
    "figure": ("figure", "app", "Draw the paper's figures: heat maps, sampling, attention, panels, bands."),
    "model": ("model", "model", "List a network's parts with shapes, parameters and FLOPs."),
    "data": ("data", "app", "Describe your own data, and look at any."),
    "submit": ("submit", "app", "Pack predictions for the servers of VOC and Cityscapes, and check such archives."),
    "import": ("import_", "import_", "Rewrite a pickled .pth file as .safetensors."),
    "schema": ("schema", "schema", "Print the recipes' JSON schema, for editors."),
}


class LazyGroup(TyperGroup):
    """Lists commands without importing them. typer keeps the types of contexts and formatters to itself: they are Any here."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, line = COMMANDS[cmd_name]
        target = getattr(import_module(f"seenet.cli.{module}"), attribute)
        if isinstance(target, typer.Typer):
            app = target
        else:
            app = typer.Typer(add_completion=False, rich_markup_mode=None)
            app.command()(target)
        command = get_command(app)
        assert isinstance(command, TyperCommand | TyperGroup)
        command.name, command.short_help = cmd_name, line
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

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

    0 done, 1 a bug, 2 usage, 3 some failed, 4 data, 5 not finite, 6 a check, 75 busy or a process lost, 130 Ctrl-C, 143 SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("seenet")
    log.setLevel(logging.INFO)
    log.handlers = [handler]
    # Of damaged tags that nothing here needs, and of sizes for which the limit here is our own.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Bytes of file names that are no UTF-8, as JSON writes them.
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
        # What a full disk or a closed pipe refuses is to be met here.
        if sys.stdout is not None:
            sys.stdout.flush()
        # typer makes this code of a KeyboardInterrupt.
        return _say("interrupted", 130) if code == 130 else int(code or 0)
    except SeenetError as error:
        if debug:
            traceback.print_exc()
        return _say(str(error), error.exit_code)
    except typer.TyperException as error:
        return _say(f"{error.format_message()} (seenet --help)", 2)
    except Terminated as error:
        return _say("terminated", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", 130)
    except (BrokenPipeError, SystemExit) as error:
        # typer makes an exit of it.
        if not isinstance(error, BrokenPipeError) and not isinstance(error.__context__, BrokenPipeError):
            raise
        # Whoever read the output has gone; nothing more can be said there.
        _close_stdout()
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        # Imported here: of no use to other command lines.
        import tempfile

        from seenet.core.processor import lacks_memory

        what = " ".join(str(error).split())
        if isinstance(error, OSError) and error.errno in REFUSED:
            if error.filename is None:
                _close_stdout()
            return _say(f"{error.filename or 'an output'}: cannot be written or read ({error.strerror})", 4)
        if lacks_memory(error):
            return _say(f"out of memory ({what[:120]}); a smaller crop, batch or picture, or --tile auto, takes less", 1)
        with tempfile.NamedTemporaryFile("w", prefix="seenet-", suffix=".txt", delete=False) as kept:
            traceback.print_exc(file=kept)
        return _say(f"a bug: {type(error).__name__}: {what[:200]}; the traceback is kept in {kept.name}", 1)


def _close_stdout() -> None:
    """Nothing that waits in its buffer can be written; at the end of the process that would be another error."""
    with suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str, code: int) -> int:
    print(f"seenet: {message}", file=sys.stderr)
    return code
