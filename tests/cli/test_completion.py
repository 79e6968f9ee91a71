"""Completion in real shells, and `iwae doctor`."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from iwae.cli import completion, doctor
from iwae.cli.app import main
from iwae.cli.registry import COMMANDS

COMPLETE = """
source "$1"
shift
COMP_WORDS=(iwae "$@")
COMP_CWORD=$#
compopt() { :; }
function=$(complete -p iwae | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function" 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script for bash, as it is installed."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_DATA_HOME", "BASH_COMPLETION_USER_DIR"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))
        patch.setenv("SHELL", "/usr/bin/bash")
        assert main(["--install-completion"]) == 0
    return home / ".local/share/bash-completion/completions/iwae"


def completed(script: Path, *words: str) -> list[str]:
    command = ["bash", "-c", COMPLETE, "bash", str(script), *words]
    return [word.strip() for word in subprocess.run(command, capture_output=True, text=True).stdout.split("\n") if word]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_values(script: Path) -> None:
    assert set(COMMANDS) <= set(completed(script, ""))
    assert completed(script, "trai") == ["train"]
    assert "--schedule" in completed(script, "train", "--sched")
    assert set(completed(script, "train", "--schedule", "")) >= {"paper", "quick", "fast"}
    assert "--samples" in completed(script, "evaluate", "--sam")
    assert "--schedule" not in completed(script, "evaluate", "--sched")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_scripts_too(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert main(["--install-completion", shell]) == 0
    path = tmp_path / {"zsh": ".zfunc/_iwae", "fish": ".config/fish/completions/iwae.fish"}[shell]
    text = path.read_text()
    assert all(f"{name}" in text for name in ("iwae", "train", "--schedule", "evaluate"))
    assert capsys.readouterr().out.split("\n")[:2] == [f"Written: {path}", completion.AFTERWARDS[shell]]
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(path)], check=True)


def test_an_unknown_shell_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("SHELL", raising=False)
    assert main(["--install-completion"]) == 1
    assert main(["--install-completion", "powershell"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("expected one of bash, zsh, fish, and SHELL does not say which is used")
    assert lines[1].endswith("expected one of bash, zsh, fish, got 'powershell'")


def test_doctor_says_what_a_bug_report_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--format", "json", "--results-dir", str(tmp_path / "new/results")]) == 0
    found = json.loads(capsys.readouterr().out)
    import jax
    import numpy as np

    assert (found["versions"]["jax"], found["versions"]["numpy"]) == (jax.__version__, np.__version__)
    assert "pytest" not in found["versions"]
    assert found["jax"]["devices"][0].startswith(jax.devices()[0].platform)
    assert set(found["data"]) >= {"looked for in", "mnist", "binfixmnist", "omniglot"}
    assert found["results"]["directory"] == f"{tmp_path / 'new/results'} (will be made)"
    assert found["results"]["lock"] == "the system's and a lease"
    assert found["step"]["milliseconds"] > 0
    assert list(tmp_path.iterdir()) == []


def test_doctor_goes_on_where_a_check_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> doctor.Section:
        raise RuntimeError("no\ndevice")

    monkeypatch.setattr(doctor, "_jax", broken)
    monkeypatch.setattr(doctor, "_step", lambda: {"milliseconds": 1.0})
    assert main(["doctor", "--results-dir", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("jax") + 1] == "  failed  RuntimeError: no device"
    assert "results" in lines
    assert lines[-1].split() == ["milliseconds", "1.0"]
