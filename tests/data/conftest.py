"""Directories of the data tests: a private cache, and the real files where they are at hand."""

from pathlib import Path

import platformdirs
import pytest

from iwae.data.files import ENVIRONMENT_VARIABLE

REAL_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture
def private_cache(tmp_path, monkeypatch):
    """A user cache directory and an environment of this test's own; the datasets directory in that cache."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


@pytest.fixture(scope="session")
def real_data():
    """The datasets directory with the real fixed binarization and the rebuilt OMNIGLOT."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real data files are not beside the checkout")
    return REAL_DATA
