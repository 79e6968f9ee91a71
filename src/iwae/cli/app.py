"""Parses the command line, runs one command, and turns every failure into one line and an exit status.

Whatever may fail to load, for want of memory, of files to open or of a package, is imported inside `guarded`.
"""

import contextlib
import dataclasses
import errno
import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

from iwae.cli.registry import COMMANDS, check_installed
from iwae.errors import IWAEError
from iwae.io.text import printable
from iwae.runs.signals import Interrupted, signals_raise
from iwae.version import __version__

T = TypeVar("T")
INDENT = " " * len("usage: ")
HELP = """usage: iwae COMMAND [OPTIONS]

Importance weighted autoencoders: train, continue, measure.

commands:
{commands}

options:
  -h, --help     Show this help, or after a command its options.
  -V, --version  Show the version.
  --install-completion [bash|zsh|fish]
                 Have the shell complete commands and options."""
# What JAX is told by these is for other programs: a run's figures are float32's, by JAX's usual rules.
NOT_OURS = ("JAX_ENABLE_X64", "JAX_NUMPY_DTYPE_PROMOTION", "JAX_NUMPY_RANK_PROMOTION")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What the system's loader, the system and JAX say where there is no memory.
NO_MEMORY = ("failed to map segment", "annot allocate memory", "RESOURCE_EXHAUSTED")
HINTS = {
    "--lr": "the learning rate is --learning-rate",
    "--resume": "a run needs no such option: the same command again continues it",
}
"""What to say of options that other programs have, where no known one is spelled alike."""

SHORTER = {"num_samples": "samples", "num_draws": "draws", "max_examples": "examples"}
"""Options that the library's functions have another name for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status: 0, 1 for a failure, 2 for bad usage, 130 or 143 after
    an interruption.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: run_command(arguments))


def run_command(arguments: list[str]) -> int:
    """Runs the command line `arguments`, and raises what it does."""
    name = arguments[0] if arguments else ""
    if name in ("--version", "-V"):
        print(f"iwae {__version__}")
        return 0
    if name in ("--help", "-h"):
        width = max(map(len, COMMANDS))
        print(HELP.format(commands="\n".join(f"  {name:<{width}}  {c.summary}" for name, c in COMMANDS.items())))
        return 0
    if name == "--install-completion":
        from iwae.cli.completion import install_completion

        return install_completion(*arguments[1:2])
    if name not in COMMANDS:
        given = f"there is no command {name!r}" if name else "no command given"
        raise usage_error(f"{given}: expected one of {', '.join(COMMANDS)}", "iwae")
    command = COMMANDS[name]
    form = command.load()
    with options_named(form):
        asked = parse(form, arguments[1:], prog=f"iwae {name}", what=command.summary)
        if command.extra is not None:
            check_installed(f"iwae {name}", command.extra)
        return asked.run(arguments[1:])


def guarded(command: Callable[[], int]) -> int:
    """Runs `command` and turns what it raises into one line on standard error and an exit status."""
    for name in NOT_OURS:
        os.environ.pop(name, None)
    for stream in (sys.stdout, sys.stderr):
        # What an encoding lacks, a ± or a file's name, is printed as an escape: figures that took hours must not be
        # lost to an encoding.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with signals_raise():
            return command()
    except SystemExit as ended:  # The option parser's, after its help or what it says of bad usage.
        return int(ended.code or 0)
    except Interrupted as error:
        return _say(f"stopped: {error}", error.exit_status)
    except IWAEError as error:
        return fail(str(error), getattr(error, "exit_status", 1))
    except KeyboardInterrupt as error:
        return _say("stopped", getattr(error, "exit_status", 130))
    except BrokenPipeError:
        # The reader of our output went away; nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, MemoryError, OSError, RuntimeError, AssertionError) as error:
        message = _of_the_machine(error)
        if message is None:
            raise
        return fail(message, 1)


def fail(message: str, status: int) -> int:
    """Prints one line to standard error, which calls arguments by their bare names, and returns `status`."""
    return _say(f"error: {with_dashes(message, ())}", status)


def _say(line: str, status: int) -> int:
    print(f"iwae: {printable(' '.join(line.splitlines()))}", file=sys.stderr)
    return status


def _of_the_machine(error: Exception) -> str | None:
    """What to say of an error that lies in the machine or the installation; None for a defect of the program.
    JAX's are told apart by their text: JAX itself is not imported here.
    """
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY):
        _hush_memory_errors()
        if isinstance(error, ImportError) or "jax" not in sys.modules:
            return "not enough memory to load the program: it needs about two gigabytes of address space"
        return "not enough memory; choose a smaller --k, --batch-size or network" + (f" ({text})" if text else "")
    if isinstance(error, ImportError):
        return f"a part of the program can't be loaded ({text}): install it again"
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        advice = "; make room and give the same command again" if error.errno in NO_ROOM else ""
        return f"{name}{error.strerror or error}{advice}"
    if "can't start new thread" in text:
        return "the system gives this process no more threads, or no memory for them"
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms and not _has_device():
        return (
            f"JAX_PLATFORMS={platforms}: JAX finds no such device; unset the variable, or install what JAX needs for it"
        )
    return text if "Unable to initialize backend" in text else None


def _has_device() -> bool:
    try:
        import jax

        return bool(jax.devices())
    except Exception:
        return False


def _hush_memory_errors() -> None:
    """JAX cleans up when Python ends. Where there is no memory for that either, our own line has said so."""
    before = sys.unraisablehook

    def report(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, MemoryError):
            before(unraisable)

    sys.unraisablehook = report


def parse(form: type[T], arguments: list[str], *, prog: str, what: str = "") -> T:
    """A dataclass filled from a command line; its help says `what` that does. Raises SystemExit with status 2, once it
    is said, for bad usage, and IWAEError for values that the dataclass itself refuses.
    """
    import tyro

    from iwae.cli.options import REGISTRY, STYLE, Refused

    is_help = bool({"-h", "--help"} & {*arguments})
    try:
        with _usage_wrapped() if is_help else contextlib.nullcontext():
            asked = tyro.cli(form, prog=prog, description=what, args=arguments, config=STYLE, registry=REGISTRY)
    except Refused as refused:
        raise refused.error from None
    except SystemExit as ended:
        for word in arguments if ended.code else ():
            if (option := word.partition("=")[0]) in HINTS:
                _say(f"{option}: {HINTS[option]}", 2)
        raise
    for name, value in _values(asked):
        # It would be as if the option had not been given.
        if value == () and _option(name) in arguments:
            raise usage_error(f"{_option(name)}: expected at least one value, got none", prog)
    return asked


@contextlib.contextmanager
def _usage_wrapped() -> Iterator[None]:
    """Breaks the first line that is printed meanwhile, which the parser leaves longer than the terminal is wide."""
    # Of the same encoding, by which the parser chooses its frames.
    printed = io.TextIOWrapper(io.BytesIO(), encoding=sys.stdout.encoding, newline="", write_through=True)
    printed.isatty = sys.stdout.isatty
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        printed.seek(0)
        usage, newline, rest = printed.read().partition("\n")
        lines, width = [""], shutil.get_terminal_size().columns
        for part in re.split(r" (?=\[)", usage):
            joined = f"{lines[-1]} {part}".lstrip()
            # What colours a word takes no room.
            is_too_long = len(re.sub(r"\x1b\[[0-9;]*m", "", joined)) > width - len(INDENT) * (len(lines) > 1)
            lines = [*lines, part] if is_too_long and lines[-1] else [*lines[:-1], joined]
        sys.stdout.write(f"\n{INDENT}".join(lines) + newline + rest)


def usage_error(message: str, prog: str) -> IWAEError:
    """The error of a command line that has no meaning: one line that points to the help, exit status 2."""
    error = IWAEError(f"{message} (see {prog} --help)")
    error.exit_status = 2  # pyright: ignore[reportAttributeAccessIssue]
    return error


def _values(form: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of every field, those of nested dataclasses too."""
    for field in dataclasses.fields(form):
        value = getattr(form, field.name)
        if dataclasses.is_dataclass(value):
            yield from _values(value)
        else:
            yield field.name, value


# The library speaks of arguments, the command line of options.


@contextlib.contextmanager
def options_named(form: type) -> Iterator[None]:
    """Has an IWAEError that is raised meanwhile call the arguments that are options of `form` by their options."""
    try:
        yield
    except IWAEError as error:
        from iwae.cli.options import option_names

        error.args = (with_dashes(str(error), option_names(form)),)
        raise


def with_dashes(message: str, names: Collection[str]) -> str:
    """`message` with every `name` in backticks as --name where it is one of `names`, and else without backticks."""

    def shown(found: re.Match[str]) -> str:
        options = [name for name in (found[1], SHORTER.get(found[1], "")) if name in names]
        return _option(options[0]) if options else found[1]

    return re.sub(r"`([a-z]\w*)`", shown, message, flags=re.ASCII)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
