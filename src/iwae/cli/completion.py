"""`iwae --install-completion`: the shell completes commands, options and values. The scripts are tyro's."""

import contextlib
import functools
import io
import operator
import os
from pathlib import Path
from typing import Annotated, Any

from iwae.cli.console import print_lines
from iwae.cli.registry import COMMANDS
from iwae.errors import IWAEError
from iwae.io.files import expanded, write_atomically

AFTERWARDS = {
    "bash": "It needs the package bash-completion, and works in shells that are started from now on.",
    "zsh": "If ~/.zshrc has no such line yet, add: fpath+=(~/.zfunc); autoload -Uz compinit; compinit",
    "fish": "It works in shells that are started from now on.",
}
"""What to say once a script is written, by shell."""


def install_completion(shell: str = "") -> int:
    """Writes the script for a shell, by default the user's (SHELL), where that shell looks for such. Returns 0.

    Raises IWAEError for another shell, and OSError where the file can't be written.
    """
    found = shell or Path(os.environ.get("SHELL", "")).name
    if found not in AFTERWARDS:
        given = f"got {found!r}" if found else "and SHELL does not say which is used"
        raise IWAEError(f"--install-completion: expected one of {', '.join(AFTERWARDS)}, {given}")
    path = _path(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, completion_script(found).encode())
    print_lines(f"Written: {path}", AFTERWARDS[found])
    return 0


def completion_script(shell: str) -> str:
    """The script of one shell, for all commands."""
    import tyro

    from iwae.cli.options import REGISTRY, STYLE

    commands: Any = [
        Annotated[command.load(), tyro.conf.subcommand(name, description=command.summary)]
        for name, command in COMMANDS.items()
    ]
    any_of_them = functools.reduce(operator.or_, commands)
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        arguments = ["--tyro-print-completion", shell]
        tyro.cli(any_of_them, prog="iwae", args=arguments, config=STYLE, registry=REGISTRY)
    return script.getvalue()


def _path(shell: str) -> Path:
    """Where a shell looks for completions of the user."""
    if shell == "zsh":
        return expanded("~/.zfunc/_iwae")
    if shell == "fish":
        return expanded(os.environ.get("XDG_CONFIG_HOME") or "~/.config") / "fish/completions/iwae.fish"
    data = expanded(os.environ.get("XDG_DATA_HOME") or "~/.local/share")
    return expanded(os.environ.get("BASH_COMPLETION_USER_DIR") or data / "bash-completion") / "completions/iwae"
