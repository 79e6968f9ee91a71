"""A small dataset, a configuration, and a run of three stages, shared by the tests of one file."""

from pathlib import Path

import pytest

from helpers.small_runs import go, small_config, write_data
from iwae import RunConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "small.npz")


@pytest.fixture(scope="module")
def config(data: Path) -> RunConfig:
    return small_config(data)


@pytest.fixture(scope="module")
def whole(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stages in one go. Tests only read it."""
    path = tmp_path_factory.mktemp("whole") / "run"
    go(path, config, stages=3)
    return path
