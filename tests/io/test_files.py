"""Files that are written whole or not at all, against real processes that die while they write."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iwae.io.files import is_leftover, remove_leftovers, write_atomically

WRITER = """
import os, sys, time
from pathlib import Path
from iwae.io.files import write_atomically

def wait(*_):
    print("written", flush=True)
    time.sleep(60)

os.replace = wait
write_atomically(Path(sys.argv[1]), b"of the other process")
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "results.json"


@pytest.fixture
def writer(target: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has written its content and not yet renamed it."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    yield process
    process.kill()
    process.communicate()


def leftovers(target: Path) -> list[Path]:
    return [path for path in target.parent.iterdir() if is_leftover(path)]


def test_what_a_living_process_writes_is_no_leftover(target: Path, writer: subprocess.Popen[str]) -> None:
    write_atomically(target, b"ours")
    remove_leftovers(target.parent)
    assert [path.read_bytes() for path in leftovers(target)] == [b"of the other process"]
    assert target.read_bytes() == b"ours"


def test_what_a_killed_process_left_goes_with_the_next_writing(target: Path, writer: subprocess.Popen[str]) -> None:
    writer.kill()
    writer.wait()
    assert len(leftovers(target)) == 1
    write_atomically(target.with_name("other.json"), b"")
    assert len(leftovers(target)) == 1
    write_atomically(target, b"ours")
    assert leftovers(target) == []
    assert target.read_bytes() == b"ours"


def test_a_directory_is_cleared_of_what_killed_processes_left(target: Path, writer: subprocess.Popen[str]) -> None:
    writer.kill()
    writer.wait()
    mine = target.with_name(".keep.partial.txt")
    mine.write_text("no leftover")
    remove_leftovers(target.parent)
    assert [path.name for path in target.parent.iterdir()] == [mine.name]


def test_a_failed_write_leaves_the_old_content(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(target, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left on device") as failure:
        write_atomically(target, b"new")
    assert failure.value.filename == str(target)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert target.read_bytes() == b"old"
