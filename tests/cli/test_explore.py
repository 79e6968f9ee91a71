"""What `iwae explore` says before it serves anything."""

import pytest

from iwae import IWAEError
from iwae.cli import explore as explore_command
from iwae.cli.explore import Explore


def test_a_missing_web_server_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(explore_command, "REQUIRED", ("starlette", "no_such_package"))
    with pytest.raises(IWAEError, match=r"needs no_such_package.* pip install 'iwae\[explore\]'") as raised:
        Explore(tmp_path).run([])
    assert "\n" not in str(raised.value)


def test_a_directory_that_is_no_run_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(explore_command, "REQUIRED", ())
    with pytest.raises(IWAEError, match="no run here"):
        Explore(tmp_path, port=0).run([])
