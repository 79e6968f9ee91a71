"""How far runs are, as their files tell on any machine that sees them."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from iwae.errors import IWAEError
from iwae.io.files import open_regular
from iwae.runs.directory import Run
from iwae.runs.orders import LOG_SUFFIX
from iwae.training.schedule import Schedule, stage_end

LOG_BYTES = 64 << 10
SAID = ("iwae: error: ", "iwae: stopped: ", "iwae: stopped")

State = Literal["waiting", "training", "measuring", "stopping", "stopped", "done", "failed"]


@dataclass(frozen=True)
class RunProgress:
    """How far one run is: `epochs` of `total` are done; `detail` says who works on it, or what failed."""

    name: str
    epochs: int
    total: int
    state: State
    detail: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it unless somebody asks for it."""
        return self.state in ("done", "failed")


def epochs_of(run: Run, schedule: Schedule) -> tuple[int, int]:
    """Epochs done and those of the schedule."""
    total, epochs = stage_end(schedule, len(schedule)), 0
    # What is wrong with a run is for the process that trains it to say.
    with contextlib.suppress(IWAEError, OSError):
        epochs = min(total, run.metrics.epochs_done())
    return epochs, total


def progress_of(run: Run, schedule: Schedule, *, is_done: bool) -> RunProgress:
    """What a run's directory and its process's log say; `is_done` is what the caller knows of its results."""
    epochs, total = epochs_of(run, schedule)
    name, holder = run.path.name, run.holder
    if is_done:
        return RunProgress(name, epochs, total, "done")
    if holder is not None:
        return RunProgress(name, epochs, total, "training" if epochs < total else "measuring", str(holder))
    said, failed = last_said(run.path.with_name(f"{name}.{LOG_SUFFIX}"))
    if failed:
        return RunProgress(name, epochs, total, "failed", said)
    return RunProgress(name, epochs, total, "stopped" if run.exists else "waiting")


def last_said(log: Path, start: int = 0) -> tuple[str, bool]:
    """What a process's log says at its end of how it ended, from byte `start` on, and whether that is an error."""
    try:
        with open_regular(log) as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - LOG_BYTES))
            lines = file.read(LOG_BYTES).decode(errors="replace").splitlines()
    except (OSError, IWAEError):
        return "", False
    last = next((line for line in reversed(lines) if line.startswith(SAID)), "")
    # What it said after that is of a later attempt.
    failed = last.startswith(SAID[0]) and lines[-1] == last
    return last.split(": ", 2)[2] if last.count(": ") > 1 else "", failed
