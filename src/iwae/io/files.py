"""Writing files so that a reader finds the old content or the new, never a part; reading them without trust."""

import contextlib
import errno
import io
import json
import os
import platform
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from iwae.errors import IWAEError

try:
    import fcntl
except ImportError:  # Windows: what a killed process left there stays.
    fcntl = None

TEMPORARY_SUFFIX = ".partial"
DAY_SECONDS = 86_400
# What file systems without locks answer.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def expanded(path: str | Path) -> Path:
    """A path that a user gave, with `~` as the home directory."""
    return Path(os.path.expanduser(path))


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside `path`, syncs, and renames over it; on failure `path` is as it was and nothing is left over.
    What killed processes left of earlier attempts is removed.

    Raises OSError, naming `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}@{platform.node()}{TEMPORARY_SUFFIX}")
    try:
        with naming(path), _held(temporary):
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    remove_leftovers(path.parent, of=path.name)
    sync_directory(path.parent)


def write_arrays(path: Path, save: Callable[..., None], *values: Any, **arrays: Any) -> None:
    """Writes arrays atomically with one of `np.save`, `np.savez` and `np.savez_compressed`."""
    buffer = io.BytesIO()
    save(buffer, *values, **arrays)
    write_atomically(path, buffer.getvalue())


def check_new(path: Path, name: str = "output") -> None:
    """Raises IWAEError, naming the argument `name`, where `path` is there already, and OSError where no file can be
    made beside it: before the work whose result goes there.
    """
    if os.path.lexists(path):
        raise IWAEError(f"`{name}` {path} is there already: remove it, or choose another name")
    check_writable(path.parent)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Makes a file and locks it for as long as this process lives, by which others know that it is no leftover."""
    if fcntl is None:
        yield
        return
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            # Before it was locked, another process may have taken it for a leftover and removed it.
            if path.exists():
                yield
                return
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Makes an OSError inside name `path`: a failed write or sync names no file by itself."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, if it is a regular one, or a link to one.

    Raises IWAEError, naming `path`, for anything else (a pipe, a device, a directory), without waiting for it, and
    OSError where it can't be opened.
    """
    # A pipe that nobody writes to would be waited for.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IWAEError(f"{path}: cannot be read, it is no regular file")
    return os.fdopen(descriptor, "rb")


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Raises IWAEError, naming `path`, for one that has more than `max_bytes` and for
    what is no regular file, and OSError where it can't be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise IWAEError(f"{path}: {size:,} bytes, more than the {max_bytes:,} that such a file may have")
        return file.read(size)


def check_writable(directory: Path) -> None:
    """Raises OSError, naming `directory`, unless a file can be made there: before work whose result goes there."""
    probe = directory / f".probe.{os.getpid()}{TEMPORARY_SUFFIX}"
    with naming(directory):
        probe.touch()
        probe.unlink()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, one key per line."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def sync_directory(directory: Path) -> None:
    """Makes a rename in `directory` durable, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_leftover(path: Path) -> bool:
    """Whether a killed `write_atomically` left this file."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY_SUFFIX)


def remove_leftovers(directory: Path, of: str = "") -> None:
    """Deletes what killed calls of `write_atomically` left in `directory`, all of it or that of the file named `of`;
    what a living process is writing stays. Locks may count on one host alone: what another is writing is left there for
    a day.
    """
    if fcntl is None:
        return
    for path in directory.glob(".*"):
        if is_leftover(path) and path.name.startswith(f".{of}." if of else "."):
            with contextlib.suppress(OSError, IWAEError), open_regular(path) as file:
                _, said, host = path.name.removesuffix(TEMPORARY_SUFFIX).rpartition("@")
                if said and host != platform.node() and time.time() - path.stat().st_mtime < DAY_SECONDS:
                    continue
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
