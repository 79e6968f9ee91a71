"""Who works on a directory: one process at a time, on whatever file system, of whatever host.

Two files stand for it. `<name>` is locked by the system (flock), which ends with the process; but on some file systems
that counts on one host alone, or not at all. So the lock also has a lease, `<name>.<n>`: it says which process on which
host holds it, is touched every few seconds, and says so when it is released. The next holder makes `<name>.<n+1>`:
since a file can be made only once and numbers only rise, one gets it.

A lease is stale where its process is dead, as far as that can be told from here, and else when it was not touched for
`STALE_SECONDS`. A holder that was suspended for so long finds out by `check`.
"""

import contextlib
import json
import os
import platform
import threading
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock

from iwae.io.files import NO_LOCKS
from iwae.io.json import decode

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
POLL_SECONDS = 0.25
RELEASED = b"released"
MOST_BYTES = 4096


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock: on which host (`machine` and `pids` say which kernel and which of its numberings of
    processes), since when it lives, and whether the file system gave it a lock of the system's too.
    """

    host: str
    machine: str
    pids: str
    pid: int
    started: str
    locked: bool

    @classmethod
    def this(cls, locked: bool) -> "Holder":
        """This process."""
        pids = ""
        with contextlib.suppress(OSError):
            pids = os.readlink("/proc/self/ns/pid")
        return cls(platform.node(), _machine(), pids, os.getpid(), _started(os.getpid()), locked)

    def is_dead(self, locked: bool) -> bool | None:
        """Whether the process is dead; None where that can't be told from here. `locked` says that we have the system's
        lock, which on one machine no two have.
        """
        if self.machine != (own := Holder.this(locked)).machine:
            return None
        if self.locked and locked:
            return True
        return _started(self.pid) != self.started if self.pids and self.pids == own.pids else None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _machine() -> str:
    """What no other machine, and not this one after it was started anew, has."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


def _started(pid: int) -> str:
    """When a process began, in ticks; nothing where there is none that lives, or that can't be told."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else rest[18]


class Held(Exception):
    """Another process has the lock; `holder` says which, where that is known."""

    def __init__(self, holder: Holder | None):
        super().__init__(str(holder))
        self.holder = holder


class Lock:
    """A lock that this process holds, from `Lock.acquire` to `release`."""

    def __init__(self, lease: Path, descriptor: int, system: filelock.BaseFileLock | None):
        self._lease, self._descriptor, self._system = lease, descriptor, system
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls, path: Path) -> "Lock":
        """Takes the lock `path`. It waits at most `STALE_SECONDS`, and only for a lease of which can't be told whether
        its process lives, until that is touched or stale.

        Raises Held where another process has it, and OSError.
        """
        system = _system_lock(path)
        try:
            return cls(*_take_lease(path, Holder.this(system is not None)), system)
        except BaseException:
            if system is not None:
                system.release()
            raise

    def is_held(self) -> bool:
        """Whether it is still ours: another process takes it over from one that was suspended for too long."""
        try:
            # Of the open file, which stays the lease where the directory is renamed.
            os.utime(self._descriptor if os.utime in os.supports_fd else self._lease)
            return os.fstat(self._descriptor).st_nlink > 0
        except OSError:
            return False

    def release(self) -> None:
        """Gives the lock back."""
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            # Of the same length: that takes no room, which a full disk does not have.
            os.write(self._descriptor, RELEASED.ljust(os.fstat(self._descriptor).st_size))
        os.close(self._descriptor)
        if self._system is not None:
            self._system.release()

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            self.is_held()


def holder_of(path: Path) -> Holder | None:
    """The process that holds the lock `path` now, as far as that can be told without taking it."""
    found = _look(path, _newest(path))
    if found is None or found.holder is None or found.holder.is_dead(locked=False):
        return None
    # The clock of another host may differ by as much.
    return found.holder if time.time() - found.touched < 2 * STALE_SECONDS else None


def _system_lock(path: Path) -> filelock.BaseFileLock | None:
    """The system's lock; None where the file system has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=0.0)
        except filelock.Timeout:
            found = _look(path, _newest(path))
            raise Held(found.holder if found else None) from None
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise
            return None
    return lock


@dataclass(frozen=True)
class _Lease:
    """What a lease says: `holder` is None where it is not written yet; `touched` is the file server's time."""

    holder: Holder | None
    released: bool
    touched: float


def _path(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _numbers(path: Path) -> list[int]:
    ends = [name.removeprefix(f"{path.name}.") for name in os.listdir(path.parent) if name.startswith(f"{path.name}.")]
    return [int(end) for end in ends if end.isdecimal()]


def _newest(path: Path) -> int:
    return max(_numbers(path), default=0)


def _look(path: Path, number: int) -> _Lease | None:
    """The lease of this number; None where there is none."""
    try:
        # Opened, for a file system over the network then asks the server.
        with open(_path(path, number), "rb") as file:
            content, touched = file.read(MOST_BYTES), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    holder = None
    with contextlib.suppress(ValueError):
        holder = decode(content, Holder)
    return _Lease(holder, content.rstrip() == RELEASED, touched)


def _take_lease(path: Path, own: Holder) -> tuple[Path, int]:
    """Makes the next lease, once the newest is free, and opens it. Raises Held."""
    newest = _newest(path)
    _wait_until_free(path, newest, own.locked)
    lease = _path(path, newest + 1)
    try:
        descriptor = os.open(lease, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        found = _look(path, newest + 1)
        raise Held(found.holder if found else None) from None
    try:
        os.write(descriptor, json.dumps(asdict(own)).encode())
        os.fsync(descriptor)
        # Others may have taken leases and let them go since we looked: then this number was free again.
        if _newest(path) > newest + 1:
            raise Held(None)
        for number in _numbers(path):
            if number <= newest:
                _path(path, number).unlink(missing_ok=True)
    except BaseException:
        os.close(descriptor)
        lease.unlink(missing_ok=True)
        raise
    return lease, descriptor


def _wait_until_free(path: Path, number: int, locked: bool) -> None:
    """Returns once a lease is released or stale. Raises Held where its process lives."""
    touched, end = None, time.monotonic() + STALE_SECONDS
    while (found := _look(path, number)) is not None and not found.released:
        dead = None if found.holder is None else found.holder.is_dead(locked)
        if dead is False or touched not in (None, found.touched):
            raise Held(found.holder)
        # By the file server's clock, which both files have their times from.
        path.touch()
        if dead or path.stat().st_mtime - found.touched >= STALE_SECONDS or time.monotonic() >= end:
            return
        touched = found.touched
        time.sleep(POLL_SECONDS)
