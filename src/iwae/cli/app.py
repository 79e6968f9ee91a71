"""Parses the command line, runs one command, and turns every failure into one line and an exit status."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import tyro

from iwae.cli.commands import COMMANDS
from iwae.errors import IWAEError
from iwae.version import __version__

T = TypeVar("T")
STYLE = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
DESCRIPTION = "Importance weighted autoencoders: train, continue, measure."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status: 0, 1 for a failure, 2 for bad usage, 130 or 143 after
    an interruption.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["--version"], ["-V"]):
        print(f"iwae {__version__}")
        return 0
    return guarded(lambda: _run(arguments))


def guarded(command: Callable[[], int]) -> int:
    """Runs `command` and turns what it raises into one line on standard error and an exit status."""
    try:
        return command()
    except IWAEError as error:
        return fail(str(error), getattr(error, "exit_status", 1))
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output went away; nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        return fail("not enough memory; choose a smaller --k or --batch-size", 1)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return fail(f"{name}{error.strerror or error}", 1)


def fail(message: str, status: int) -> int:
    """Prints one line to standard error and returns `status`."""
    print(f"iwae: error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _run(arguments: list[str]) -> int:
    with _one_line_usage_errors("iwae"):
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="iwae", description=DESCRIPTION, args=arguments, config=STYLE
        )
    return command.run(arguments)


def parse(form: type[T], arguments: list[str], *, prog: str) -> T:
    """A dataclass filled from a command line. Raises IWAEError with exit status 2 for bad usage."""
    with _one_line_usage_errors(prog):
        return tyro.cli(form, prog=prog, args=arguments, config=STYLE)


@contextlib.contextmanager
def _one_line_usage_errors(prog: str) -> Iterator[None]:
    """Turns the parser's boxed messages into one IWAEError line with exit status 2."""
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            yield
    except SystemExit as exit_:
        if not exit_.code:
            raise
        error = IWAEError(f"{_first_sentence(captured.getvalue())} (see {prog} --help)")
        error.exit_status = 2  # pyright: ignore[reportAttributeAccessIssue]
        raise error from None


def _first_sentence(boxed: str) -> str:
    """The text of a box up to its first rule, without its frame."""
    lines = []
    for line in boxed.splitlines():
        text = line.strip("│╭╮╰╯ ")
        if text.startswith("─") or re.fullmatch(r".*─{3,}", text):
            if lines:
                break
            continue
        lines.append(text)
    return " ".join(lines).rstrip(". ")
