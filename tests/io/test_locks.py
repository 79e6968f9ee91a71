"""Locks between processes and hosts: who gets one, what a dead holder leaves, and what one that was suspended finds."""

import contextlib
import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from iwae.io import locks
from iwae.io.locks import Held, Holder, Lock, holder_of

HOLD = """
import sys
from pathlib import Path
from iwae.io.locks import Lock
lock = Lock.acquire(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no locks."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(locks, "STALE_SECONDS", 2.0)
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.02)


def lease(path: Path) -> Path:
    """The newest lease."""
    return max(path.parent.glob(".lock.*"), key=lambda found: int(found.suffix[1:]))


def elsewhere(path: Path, number: int = 1, age: float = 0.0) -> Path:
    """What a process on another host leaves that is killed, so many seconds ago."""
    found = path.with_name(f".lock.{number}")
    found.write_text(json.dumps(asdict(replace(Holder.this(locked=True), machine="another", host="node7", pid=12))))
    when = time.time() - age
    os.utime(found, (when, when))
    return found


@contextlib.contextmanager
def beating(path: Path) -> Iterator[None]:
    """A process on another host that lives."""
    found, stopped = elsewhere(path), threading.Event()

    def beat() -> None:
        while not stopped.wait(0.1):
            os.utime(found)

    thread = threading.Thread(target=beat)
    thread.start()
    yield
    stopped.set()
    thread.join()


@contextlib.contextmanager
def held_by_another(path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


@pytest.mark.usefixtures("no_flock")
def test_one_gets_it_and_then_the_next_also_without_locks_of_the_system(path: Path) -> None:
    for count in (1, 2, 3):
        lock = Lock.acquire(path)
        assert holder_of(path) == Holder.this(locked=False)
        with pytest.raises(Held, match=f"process {os.getpid()} on "):
            Lock.acquire(path)
        assert lock.is_held()
        lock.release()
        assert holder_of(path) is None
        assert lease(path).name == f".lock.{count}"
        assert len(list(path.parent.iterdir())) == 2


def test_a_process_that_holds_it_is_named_and_what_it_leaves_when_killed_is_free(path: Path) -> None:
    with held_by_another(path) as process:
        assert (found := holder_of(path)) is not None
        assert (found.pid, found.locked) == (process.pid, True)
        with pytest.raises(Held, match=f"process {process.pid} on "):
            Lock.acquire(path)
    assert holder_of(path) is None
    Lock.acquire(path).release()


def test_a_dead_process_of_this_host_holds_nothing_where_files_cannot_be_locked(
    path: Path, no_flock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_by_another(path) as process:
        found = json.loads(lease(path).read_text())
        lease(path).write_text(json.dumps({**found, "locked": False}))
        with pytest.raises(Held, match=f"process {process.pid} on "):
            Lock.acquire(path)
    Lock.acquire(path).release()
    # The number of its process is another's now.
    lease(path).write_text(json.dumps({**found, "pid": os.getppid()}))
    Lock.acquire(path).release()


@pytest.mark.usefixtures("quick")
def test_a_process_of_another_host_is_believed_to_live_while_it_says_so(path: Path) -> None:
    with beating(path):
        with pytest.raises(Held, match="process 12 on node7"):
            Lock.acquire(path)
        assert (found := holder_of(path)) is not None
        assert found.host == "node7"
    # Killed just now: it is waited for, but not for good.
    lock = Lock.acquire(path)
    assert lease(path).name == ".lock.2"
    assert not path.with_name(".lock.1").exists()
    lock.release()


def test_what_was_left_long_ago_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks.time, "sleep", lambda _: pytest.fail("it waited"))
    for number, content in ((1, None), (3, b""), (7, b"\xff{"), (9, b"{}")):
        found = elsewhere(path, number, age=3600.0)
        if content is not None:
            found.write_bytes(content)
            os.utime(found, (0, 0))
        assert holder_of(path) is None
        Lock.acquire(path).release()
        assert lease(path).name == f".lock.{number + 1}"


@pytest.mark.usefixtures("quick")
def test_one_that_is_being_written_is_waited_for(path: Path) -> None:
    path.with_name(".lock.1").touch()
    begun = time.monotonic()
    Lock.acquire(path).release()
    assert time.monotonic() - begun >= 1.0


def test_one_whose_lease_was_taken_over_finds_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both on one host here, so the second is made to believe that the first is on another, and silent for an hour."""
    first = Lock.acquire(path)
    elsewhere(path, 1, age=3600.0)
    with monkeypatch.context() as patch:
        patch.setattr(locks, "_system_lock", lambda _: None)
        second = Lock.acquire(path)
    assert second.is_held()
    assert not first.is_held()
    first.release()
    assert second.is_held()
    assert holder_of(path) == Holder.this(locked=False)
    second.release()


def test_one_that_is_renamed_with_its_directory_is_still_held(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    lock = Lock.acquire(tmp_path / "a" / ".lock")
    os.rename(tmp_path / "a", tmp_path / "b")
    assert lock.is_held()
    lock.release()
    assert holder_of(tmp_path / "b" / ".lock") is None


@pytest.mark.usefixtures("no_flock")
def test_of_many_that_want_a_stale_one_at_once_one_gets_it(path: Path) -> None:
    for attempt in range(20):
        elsewhere(path, 5 * attempt + 1, age=3600.0)
        barrier, got = threading.Barrier(8), []

        def want(barrier: threading.Barrier = barrier, got: list[Lock] = got) -> None:
            barrier.wait()
            with contextlib.suppress(Held):
                got.append(Lock.acquire(path))

        threads = [threading.Thread(target=want) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        assert got[0].is_held()
        got[0].release()


@pytest.mark.usefixtures("no_flock")
def test_one_that_looked_before_others_came_and_went_does_not_get_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saw lease 1, stale. Meanwhile two others took and released 2 and took 3: 2 is free again, and it makes it."""
    elsewhere(path, 1, age=3600.0)
    wait, others = locks._wait_until_free, []

    def slow(*arguments: object) -> None:
        wait(*arguments)  # pyright: ignore[reportArgumentType]
        monkeypatch.setattr(locks, "_wait_until_free", wait)
        Lock.acquire(path).release()
        others.append(Lock.acquire(path))

    monkeypatch.setattr(locks, "_wait_until_free", slow)
    with pytest.raises(Held):
        Lock.acquire(path)
    assert others[0].is_held()
    assert [found.name for found in path.parent.glob(".lock.*")] == [".lock.3"]
    others[0].release()


def test_on_a_full_disk_it_is_refused_and_released(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left that the next one would wait for: what is released has no more bytes than before."""
    lock = Lock.acquire(path)
    size = lease(path).stat().st_size
    lock.release()
    assert lease(path).stat().st_size == size

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(locks.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            Lock.acquire(path)
    assert lease(path).name == ".lock.1"
    monkeypatch.setattr(locks.time, "sleep", lambda _: pytest.fail("it waited"))
    Lock.acquire(path).release()


def test_other_failures_of_the_system_are_errors(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", failing)
    with pytest.raises(OSError, match="Input/output error"):
        Lock.acquire(path)
