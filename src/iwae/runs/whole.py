"""A run directory that appears once it is whole."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from iwae.errors import IWAEError, RunBusyError
from iwae.io.files import sync_directory
from iwae.runs.directory import LOCK, Run


def check_free(out: Run) -> None:
    """Raises IWAEError where something is at the place of a new run."""
    out.check_no_file_in_the_way()
    if out.path.is_dir() and any(out.path.iterdir()):
        raise IWAEError(f"{out.path} is not empty: choose another `out`")


@contextlib.contextmanager
def made_whole(out: Run) -> Iterator[Run]:
    """A run directory beside `out` that takes its place at the end, and goes away after a failure.

    What a killed process left of an earlier one is removed first.
    """
    unfinished = Run(out.path.resolve().with_name(f".{out.path.resolve().name}.partial"))
    if unfinished.path.is_symlink():
        raise IWAEError(f"{unfinished.path} is a link, and what it leads to would be cleared: remove it first")
    unfinished.create()
    try:
        with unfinished.lock():
            for path in unfinished.path.iterdir():
                if not path.name.startswith(LOCK):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            unfinished.create()
            yield unfinished
        check_free(out)
        # They tell of this process and its host.
        for path in unfinished.path.glob(f"{LOCK}*"):
            path.unlink()
        _take_place(unfinished.path, out.path.resolve())
    except RunBusyError:
        raise
    except BaseException:
        shutil.rmtree(unfinished.path, ignore_errors=True)
        raise


def _take_place(unfinished: Path, out: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        out.rmdir()
    os.rename(unfinished, out)
    sync_directory(out.parent)
