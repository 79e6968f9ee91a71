"""What `iwae explore` says, writes and opens; its page is in tests/explore/."""

from pathlib import Path

import numpy as np
import pytest

from helpers.small_runs import files_below, go, small_config, write_data
from iwae import IWAEError
from iwae.cli import explore as explore_command
from iwae.cli import main
from iwae.cli.explore import Explore


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("explore")
    go(directory / "run", small_config(write_data(directory / "d.npz")), stages=2)
    return directory / "run"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was asked to open, on a machine with a screen."""
    addresses: list[str] = []
    monkeypatch.setattr(explore_command, "_has_screen", lambda: True)
    monkeypatch.setattr(explore_command.webbrowser, "open", addresses.append)
    return addresses


def test_it_writes_one_file_beside_the_run_and_opens_it(run, opened, capsys):
    before = files_below(run)
    assert main(["explore", str(run)]) == 0
    page = run / "explore.html"
    assert opened == [page.resolve().as_uri()]
    assert capsys.readouterr().out == f"Written: {page}\n"
    after = files_below(run)
    assert after.pop("explore.html").startswith(b"<!doctype html>")
    assert after == before


def test_another_checkpoint_and_another_file(run, opened, tmp_path, capsys):
    output = tmp_path / "page #1.html"
    for stages in ("1", "2"):
        assert main(["explore", str(run), "--output", str(output), "--checkpoint", stages, "--no-open"]) == 0
        assert f'"text":"after {stages} stage' in output.read_text()
    assert opened == []
    assert capsys.readouterr().out == f"Written: {output}\n" * 2


def test_without_a_screen_nothing_is_opened(run, tmp_path, monkeypatch):
    monkeypatch.setattr(explore_command.webbrowser, "open", lambda _: pytest.fail("no screen"))
    assert main(["explore", str(run), "--output", str(tmp_path / "page.html")]) == 0


def test_a_directory_that_is_no_run_is_one_line(tmp_path):
    with pytest.raises(IWAEError, match="no run here"):
        Explore(tmp_path).run([])


@pytest.mark.parametrize("output", [".", "missing/page.html"])
def test_where_no_page_can_be_written_is_one_line_before_anything_is_measured(run, tmp_path, capsys, output):
    assert main(["explore", str(run), "--output", str(tmp_path / output)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"iwae: error: {tmp_path}")
    assert "output" in error
    assert error.count("\n") == 1


def test_data_that_have_changed_are_one_line(run, tmp_path, capsys):
    other = tmp_path / "d.npz"
    np.savez(other, train=np.zeros((4, 6), np.uint8), valid=np.zeros((1, 6), np.uint8), test=np.zeros((2, 6), np.uint8))
    assert main(["explore", str(run), "--dataset", str(other), "--no-open"]) == 1
    assert "is not the file that this run was trained on" in capsys.readouterr().err
