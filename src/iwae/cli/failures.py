"""What every command says when it fails: one line on standard error. Imports nothing that could itself fail."""

import io
import sys

from iwae.io.text import printable

NO_MEMORY = "not enough memory; choose a smaller --k, --batch-size or network"
# What the system's loader says of a library that there is no room for.
NO_ROOM_FOR_LIBRARY = ("failed to map segment", "annot allocate memory")


def fail(message: str, status: int) -> int:
    """Prints one line to standard error and returns `status`."""
    print(f"iwae: error: {printable(' '.join(message.splitlines()))}", file=sys.stderr)
    return status


def fail_for_memory(detail: str = "") -> int:
    """The line, and status, of a command that ran out of memory."""
    before = sys.unraisablehook

    def report(unraisable: "sys.UnraisableHookArgs") -> None:
        # JAX cleans up when Python ends. Where there is no memory for that either, this line has said so.
        if not isinstance(unraisable.exc_value, MemoryError):
            before(unraisable)

    sys.unraisablehook = report
    return fail(NO_MEMORY + detail, 1)


def fail_to_load(error: ImportError | MemoryError | OSError) -> int:
    """The line, and status, of a command that could not even be loaded."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or any(words in text for words in NO_ROOM_FOR_LIBRARY):
        return fail("not enough memory to load the program: it needs about two gigabytes of address space", 1)
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return fail(f"{name}{error.strerror or error}", 1)
    return fail(f"a part of the program can't be loaded ({text}): install it again", 1)


def print_whatever_the_locale() -> None:
    """Lets standard output and error print what their encoding lacks, a ± or a file's name, as an escape: figures
    that took hours must not be lost to an encoding.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
