"""Names of datasets and the directories that are searched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iwae.data import canonical_name, load_dataset, obtain, search_directories
from iwae.errors import IWAEError


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("mnist", "mnist"),
        ("MNIST", "mnist"),
        ("binfixmnist", "binfixmnist"),
        ("BinFixMNIST", "binfixmnist"),
        ("omniglot", "omniglot"),
        ("OMNI", "omniglot"),
        ("omni", "omniglot"),
    ],
)
def test_every_spelling_has_one_name(given, canonical):
    assert canonical_name(given) == canonical


def test_a_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert canonical_name("mine.npz") == str(tmp_path / "mine.npz")
    assert canonical_name("sub/../mine.NPY") == str(tmp_path / "mine.NPY")
    assert canonical_name("~/mine.npy") == os.path.expanduser("~/mine.npy")
    assert canonical_name(canonical_name("mine.npz")) == str(tmp_path / "mine.npz")


@pytest.mark.parametrize("name", ["", "cifar", "mnist.xlsx", "two\nlines", "nul\0.npz"])
def test_an_unknown_name_is_answered_with_the_known_ones(name):
    with pytest.raises(IWAEError) as raised:
        canonical_name(name)
    message = str(raised.value)
    assert "\n" not in message
    for expected in ("mnist", "binfixmnist", "omniglot", ".npz", ".npy"):
        assert expected in message


def test_directories_are_searched_in_order(private_cache, tmp_path, monkeypatch):
    assert search_directories() == [private_cache]
    monkeypatch.setenv("IWAE_DATASETS_DIR", str(tmp_path / "environment"))
    found = search_directories(tmp_path / "option", tmp_path / "default")
    assert found == [tmp_path / "option", tmp_path / "environment", tmp_path / "default", private_cache]


def test_unset_and_repeated_directories_are_left_out(private_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_DATASETS_DIR", "")
    monkeypatch.chdir(tmp_path)
    assert search_directories("here", tmp_path / "here") == [tmp_path / "here", private_cache]
    assert search_directories("~/there")[0] == Path("~/there").expanduser()


def test_own_data_cannot_be_obtained(tmp_path):
    with pytest.raises(IWAEError, match="nothing to obtain"):
        obtain(str(tmp_path / "mine.npz"))


def test_missing_data_is_not_obtained_unasked(private_cache, tmp_path):
    with pytest.raises(IWAEError) as raised:
        load_dataset("mnist", directory=tmp_path / "option", obtain=False)
    message = str(raised.value)
    assert "\n" not in message
    assert "iwae data mnist" in message
    assert str(tmp_path / "option") in message
    assert str(private_cache) in message
    assert not (tmp_path / "option").exists()


def test_importing_the_package_is_light():
    heavy = ("jax", "scipy", "httpx", "filelock", "platformdirs")
    code = f"import sys, iwae.data; print([name for name in {heavy!r} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
