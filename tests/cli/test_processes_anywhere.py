"""Real processes in any locale, and on files whose names are no UTF-8."""

import os
import subprocess
from pathlib import Path

import pytest

from helpers.small_runs import COMMAND, environment, go, small_config, write_data

LOCALES = {
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    "utf-8": {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"},
}
# The newest analysis would be as good as one with so few samples, and is not there yet.
MEASURE = [b"--samples", b"20"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two runs of data whose names are no text in any usual encoding."""
    if not COMMAND.exists():
        pytest.skip("the command is not installed in this environment")
    directory = tmp_path_factory.mktemp("anywhere")
    try:
        data = write_data(directory / os.fsdecode(b"d\xe9.npz"))
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    for name in (b"run\xfe", b"run\xff"):
        go(directory / os.fsdecode(name), small_config(data, k=2), stages=1)
    return directory


def run(directory: Path, locale: str, *words: bytes) -> subprocess.CompletedProcess[bytes]:
    settings = {name: value for name, value in environment().items() if not name.startswith("LC_")}
    return subprocess.run(
        [os.fsencode(COMMAND), *words],
        cwd=directory,
        env=settings | LOCALES[locale],
        capture_output=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("locale", ["ascii", pytest.param("utf-8", marks=pytest.mark.slow)])
def test_figures_and_names_are_printed_in_any_locale(directory: Path, locale: str) -> None:
    shown = run(directory, locale, b"show", b"--results-dir", b".")
    measured = run(directory, locale, b"evaluate", b"run\xfe", *MEASURE)
    for done in (shown, measured):
        assert done.returncode == 0, done.stderr
        assert (b"\\xb1" if locale == "ascii" else "±".encode()) in done.stdout
        assert b"\\udce9.npz" in done.stdout
        # What was printed can be read in that locale.
        done.stdout.decode(locale)


@pytest.mark.parametrize("locale", ["ascii", pytest.param("utf-8", marks=pytest.mark.slow)])
def test_failures_about_such_names_are_one_line(directory: Path, locale: str) -> None:
    for words in (
        [b"show", b"no\xfe"],
        [b"train", b"--dataset", b"no\xfe.npz"],
        [b"tr\xfein"],
        [b"train", b"--\xfe", b"1"],
    ):
        done = run(directory, locale, *words)
        assert done.returncode in (1, 2), words
        said = done.stderr.decode(locale)
        assert "\\udcfe" in said
        assert "Traceback" not in said
        # What the option parser says of an option that it does not know takes several.
        assert said.count("\n") == 1 or words[-1] == b"1"


def test_a_page_about_such_runs_is_utf_8(directory: Path) -> None:
    """Of two runs, whose names are drawn in a chart too."""
    done = run(directory, "ascii", b"report", b"run\xfe", b"run\xff", b"--out", b"page\xfe.html", *MEASURE)
    assert done.returncode == 0, done.stderr
    page = (directory / os.fsdecode(b"page\xfe.html")).read_text(encoding="utf-8")
    assert "run\\udcfe" in page
    assert "run\\udcff" in page
