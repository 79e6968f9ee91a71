"""`kill -9` at a moment of one's choice: of a process, or of those that it started; and what it must not leave."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from helpers.small_runs import files_below
from helpers.workshop import DEADLINE
from iwae.io.files import is_leftover

# What two commands that did the same may differ in: how long they took.
TIMES = {"seconds", "training_seconds"}

Moment = Callable[[], bool]


def no_half_files(directory: Path) -> None:
    """Asserts that every file with a name of its own is whole."""
    for path in directory.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix in (".npz", ".npy"):
            np.load(path)


def after(seconds: float) -> Moment:
    """So long after now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


class Killer:
    """Kills processes that write below `directory` at random moments and counts: all kills in `killed`, and in
    `half_written` those after which the hidden part of a file was there that was not there before.
    """

    def __init__(self, directory: Path, rng: random.Random):
        self.directory = directory
        self.killed = self.half_written = 0
        self._rng = rng

    def kill(self, start: Callable[[], subprocess.Popen[str]], longest: float) -> subprocess.Popen[str]:
        """Starts a process and kills it within `longest` seconds, every second one at the first moment from then on
        at which a file is half written. Returns it: its status is 0 where it had ended by itself.
        """
        known = self.leftovers()
        process = start()
        late = after(self._rng.uniform(0.0, longest))
        writing = self._rng.randrange(2) == 0
        end = time.monotonic() + DEADLINE
        while process.poll() is None and not (late() and (not writing or self.leftovers() - known)):
            assert time.monotonic() < end
            time.sleep(0.0002)
        process.kill()
        process.communicate()
        self.killed += (was_killed := process.returncode == -signal.SIGKILL)
        self.half_written += was_killed and bool(self.leftovers() - known)
        return process

    def leftovers(self) -> set[Path]:
        """The hidden parts of files that are below the directory now."""
        found = set()
        # Faster than Path.rglob: the next moment may be too late.
        for folder, _, names in os.walk(self.directory):
            found |= {path for name in names if is_leftover(path := Path(folder, name))}
        return found


def children(pid: int) -> list[int]:
    """The processes that a process started and that still live; needs Linux's /proc."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(pid) for pid in listed.split()]


def kill_children(process: subprocess.Popen[str], rng: random.Random, *, most: int) -> int:
    """Kills up to `most` of the processes that a process started, any of them; returns how many it killed."""
    living = children(process.pid)
    chosen = rng.sample(living, min(most, len(living)))
    for pid in chosen:
        os.kill(pid, signal.SIGKILL)
    return len(chosen)


def content(directory: Path) -> dict[str, Any]:
    """Every file below a directory, but for locks and how long things took, in a form that can be compared."""
    return {name: _without_times(name, data) for name, data in files_below(directory).items() if ".lock" not in name}


def _without_times(name: str, data: bytes) -> Any:
    if not name.endswith(".json"):
        return data

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(inner) for key, inner in value.items() if key not in TIMES}
        return [strip(inner) for inner in value] if isinstance(value, list) else value

    return strip(json.loads(data))
