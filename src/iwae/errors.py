"""The library's one public error, and the checks that most often raise it."""

import numbers
from importlib.util import find_spec
from typing import Any


class IWAEError(ValueError):
    """Something the user can mend: the message is one line that says what was given, what was expected
    and what to do. It calls arguments by their names, in backticks.

    The command line turns these names into its options, prints the message after `iwae: error:` and exits with
    status 1; library users catch it.
    """


class RunBusyError(IWAEError):
    """Another process is training or measuring in the same run directory."""


MOST = 2**31 - 1
"""No number of anything may be larger: what counts steps, samples and units has 32 bits."""


def check_count(
    name: str, value: Any, least: int = 1, where: str = "", *, most: int = MOST, optional: bool = False
) -> None:
    """Raises IWAEError unless `value` is an integer, Python's or NumPy's, of at least `least` and at most `most`;
    `name` is the argument that it was given as, and `where` says what asks for it. `optional` ones may be None.
    """
    if value is None and optional:
        return
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise IWAEError(f"`{name}` must be an integer of at least {least}{where}, got {value!r}")
    if int(value) > most:
        raise IWAEError(f"`{name}` must be at most {most:,}{where}, got {value!r}")


def needs_extra(module: str, extra: str) -> None:
    """Raises IWAEError unless `module` is installed; `extra` is the optional dependency of iwae that installs it."""
    if find_spec(module) is None:
        raise IWAEError(f'this needs {module}, which is not installed: pip install "iwae[{extra}]"')
