"""Help fits the terminal, and is quick to print."""

import re
import subprocess
import sys

import pytest

from iwae.cli import main
from iwae.cli.registry import COMMANDS


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*command.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    assert command == "" or f"\n\n{COMMANDS[command].summary}\n" in out
    documented = {
        "": "--version",
        "train": "--save-every",
        "show": "--results-dir",
        "sample": "--rows",
        "outliers": "--output",
        "impute": "--draws",
        "compare": "--format",
        "export": "--out",
        "pretrained": "--format",
    }
    assert documented.get(command, "--datasets-dir") in out
    # Text is filled: a line that is broken early is one of the source's.
    lines = [line.strip("│ ") for line in out.splitlines()]
    assert not any(line in ("of", "docs/how-to/likelihood.md);") for line in lines)
    # Of a default that is to give nothing the option's own words say what it means.
    assert not re.search(r"default: *(None|False|\))", out)
    assert "(default: mnist)" in out or command != "train"


def test_help_imports_no_command() -> None:
    code = "from iwae.cli import main; import sys; main(['--help']);"
    check = f"{code} assert not {{'tyro', 'rich', 'numpy', 'iwae.cli.train', 'iwae.data'}} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
