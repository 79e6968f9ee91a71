"""The installed version, and the commit of a checkout."""

import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    __version__ = version("iwae")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "unknown"


@lru_cache(maxsize=1)
def source_commit() -> str | None:
    """The commit of the checkout that this package is used from, with `-dirty` where files differ from it; None for an
    installed package, and without git.
    """
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
