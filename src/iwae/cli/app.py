"""Parses the command line, runs one command, and turns every failure into one line and an exit status."""

import contextlib
import dataclasses
import errno
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import tyro

from iwae.cli.failures import fail, fail_for_memory, fail_to_load, print_whatever_the_locale
from iwae.cli.options import REGISTRY
from iwae.cli.registry import COMMANDS
from iwae.errors import IWAEError
from iwae.runs.signals import signals_raise
from iwae.version import __version__

T = TypeVar("T")
STYLE = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DESCRIPTION = "Importance weighted autoencoders: train, continue, measure."


def run_command_line(argv: Sequence[str] | None = None) -> int:
    """`iwae.cli.main`, once all is loaded."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["--version"], ["-V"]):
        print(f"iwae {__version__}")
        return 0
    return guarded(lambda: _run(arguments))


def guarded(command: Callable[[], int]) -> int:
    """Runs `command` and turns what it raises into one line on standard error and an exit status."""
    print_whatever_the_locale()
    try:
        with signals_raise():
            return command()
    except IWAEError as error:
        return fail(str(error), getattr(error, "exit_status", 1))
    except KeyboardInterrupt as error:
        return fail("interrupted", getattr(error, "exit_status", 130))
    except BrokenPipeError:
        # The reader of our output went away; nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        return fail_for_memory()
    except ImportError as error:
        return fail_to_load(error)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        advice = "; make room and give the same command again" if error.errno in NO_ROOM else ""
        return fail(f"{name}{error.strerror or error}{advice}", 1)
    except RuntimeError as error:
        # JAX's errors, told apart by their text: JAX itself is not imported here.
        if "RESOURCE_EXHAUSTED" in str(error):
            return fail_for_memory(f" ({error})")
        if "Unable to initialize backend" in str(error):
            return fail(str(error), 1)
        if "can't start new thread" in str(error):
            return fail("the system gives this process no more threads, or no memory for them", 1)
        raise


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name not in COMMANDS and not name.startswith("-"):
        given = f"there is no command {name!r}" if name else "no command given"
        raise usage_error(f"{given}: expected one of {', '.join(COMMANDS)}", "iwae")
    with _one_line_usage_errors(f"iwae {name}" if name in COMMANDS else "iwae"):
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="iwae", description=DESCRIPTION, args=arguments, config=STYLE, registry=REGISTRY
        )
    _refuse_empty(command, arguments, name)
    return command.run(arguments)


def _refuse_empty(form: Any, arguments: list[str], name: str) -> None:
    """Raises the usage error of an option that takes several values and was given none: it would be as if it had not
    been given.
    """
    for field in dataclasses.fields(form):
        value, option = getattr(form, field.name), f"--{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            _refuse_empty(value, arguments, name)
        elif value == () and option in arguments:
            raise usage_error(f"{option}: expected at least one value, got none", f"iwae {name}")


def parse(form: type[T], arguments: list[str], *, prog: str) -> T:
    """A dataclass filled from a command line. Raises IWAEError with exit status 2 for bad usage."""
    with _one_line_usage_errors(prog):
        return tyro.cli(form, prog=prog, args=arguments, config=STYLE, registry=REGISTRY)


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
        raise usage_error(_in_words(_first_sentence(captured.getvalue())), prog) from None


def usage_error(message: str, prog: str) -> IWAEError:
    """The error of a command line that has no meaning: one line that points to the help, exit status 2."""
    error = IWAEError(f"{message} (see {prog} --help)")
    error.exit_status = 2  # pyright: ignore[reportAttributeAccessIssue]
    return error


def _in_words(message: str) -> str:
    """The parser's message without Python's own words for what is no number, and its choices in one order."""
    message = re.sub(r"\. Expected one of \((.*?)\)", lambda found: f": expected {_choices(found[1])}", message)
    message = re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"expected an integer, got \1", message)
    message = re.sub(r"could not convert string to float: (.*)", r"expected a number, got \1", message)
    message = re.sub(r"Could not find valid parse for arguments: (.*)", r"expected numbers, got \1", message)
    return message.removeprefix("Error parsing ")


def _choices(listed: str) -> str:
    names = sorted(name.strip(" '") for name in listed.split(",") if name.strip())
    return ", ".join(names)


def _first_sentence(boxed: str) -> str:
    """The text of a box between its first two rules, without its frame: the title is on or above the first."""
    parts: list[list[str]] = [[]]
    for line in boxed.splitlines():
        text = line.strip("│╭╮╰╯ ")
        if re.fullmatch(r".*[─-]{3,}", text):
            parts.append([])
        elif text:
            parts[-1].append(text)
    chosen = next(filter(None, parts[1:]), parts[0])
    return " ".join(chosen).rstrip(". ")
