"""Trains the cells of the paper's tables that are missing, in processes of their own, some at once."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from iwae.errors import IWAEError
from iwae.paper.cells import Cell
from iwae.paper.plan import Plan
from iwae.paper.status import source_stages
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.options import MeasureOptions
from iwae.runs.signals import SignalWatch
from iwae.training.schedule import stage_end

POLL_SECONDS = 0.5
ENDING_SECONDS = 0.05
LOG_SUFFIX = "train.log"
# A module that the runner only names: a cell's process has a command line's manners.
CELL_MODULE = "iwae.cli.paper_cell"


@dataclass(frozen=True)
class CellProgress:
    """How far one run is: `epochs` of `total` are done. `state` is waiting, training, measuring,
    stopping, done or failed."""

    config: RunConfig
    epochs: int
    total: int
    state: str


OnCells = Callable[[Sequence[CellProgress]], None]


def train_cells(
    plan: Plan,
    results_dir: Path,
    *,
    stages: int | None = None,
    measure: MeasureOptions | None = None,
    jobs: int = 1,
    datasets_dir: Path | None = None,
    on_cells: OnCells | None = None,
) -> list[str]:
    """Trains, measures and analyzes the work of a plan in `jobs` processes at once; returns what failed, a line each.

    Cells that share data, network and number of samples are trained by one process in one compiled program, unless
    other processes would have nothing to do. Each process has its share of the cores. Unfinished runs are continued. A
    cell that starts from another run waits for it. What a process says goes to `<run>.train.log`, named after the first
    of its runs.

    On SIGINT, SIGTERM and their like all processes are told to save and stop, and Interrupted is raised once they have;
    a further signal kills those that are left. Should this process die, they save and stop by themselves.
    """
    results_dir.mkdir(parents=True, exist_ok=True)
    measure = measure or MeasureOptions()
    work = [_Work(cells, results_dir, stages, measure, datasets_dir) for cells in together(plan.work, jobs)]
    shares = divided_cores(max(1, min(jobs, len(work))))
    with SignalWatch(hold=True) as signals:
        try:
            while any(not job.ended for job in work) and signals.received is None:
                for job in work:
                    free = sorted(set(range(len(shares))) - {other.share for other in work if other.is_running})
                    if free and job.can_start(work):
                        job.start(free[0], shares[free[0]])
                if on_cells is not None:
                    on_cells(_progress(work))
                for job in work:
                    job.poll()
                time.sleep(POLL_SECONDS)
        finally:
            killed = _end(work, signals, on_cells)
        lost = "what was done since the last checkpoint is lost" if killed else "all is saved"
        signals.check(f"{lost}. The same command continues where it stopped")
    if on_cells is not None:
        on_cells(_progress(work))
    return [job.failure for job in work if job.failure is not None]


def divided_cores(jobs: int) -> list[list[int]]:
    """The cores that this process may use, divided among so many processes: each has at least one, and no core is in
    two shares while there are enough. Shares are empty where the system has no such affinity.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(jobs)]
    cores = sorted(os.sched_getaffinity(0))
    ends = [len(cores) * job // jobs for job in range(jobs + 1)]
    return [cores[start:end] or [cores[start % len(cores)]] for start, end in itertools.pairwise(ends)]


def _end(work: Sequence["_Work"], signals: SignalWatch, on_cells: OnCells | None) -> bool:
    """Tells every running process to save and end before it waits for any; kills them at a further signal.

    Returns whether any was killed.
    """
    running = [job.process for job in work if job.stop() and job.process is not None]
    if running and on_cells is not None:
        on_cells(_progress(work))
    killed = False
    while any(process.poll() is None for process in running):
        if signals.count > 1 and not killed:
            for process in running:
                process.kill()
            killed = True
        time.sleep(ENDING_SECONDS)
    return killed


def together(cells: Sequence[Cell], jobs: int) -> list[list[Cell]]:
    """The cells as groups for a process each: those that differ in objective and seed alone in one group, but in at
    least `jobs` groups if there are as many cells.
    """
    groups: list[list[Cell]] = []
    for cell in cells:
        for group in groups:
            if cell.source is group[0].source is None and not cell.config.kept_apart(group[0].config):
                group.append(cell)
                break
        else:
            groups.append([cell])
    while len(groups) < jobs and (largest := max(groups, key=len, default=[])) and len(largest) > 1:
        groups.insert(groups.index(largest) + 1, [largest.pop()])
    return groups


def _progress(work: Sequence["_Work"]) -> list[CellProgress]:
    return [progress for job in work for progress in job.progress()]


class _Work:
    """The process of one cell, or of several that are trained together."""

    def __init__(
        self,
        cells: Sequence[Cell],
        results_dir: Path,
        stages: int | None,
        measure: MeasureOptions,
        datasets_dir: Path | None,
    ):
        self.cells, self.results_dir = cells, results_dir
        self.runs = [Run(cell.directory(results_dir)) for cell in cells]
        self.log_path = results_dir / f"{self.runs[0].path.name}.{LOG_SUFFIX}"
        self.process: subprocess.Popen[bytes] | None = None
        self.failure: str | None = None
        self.ended = False
        self.stopping = False
        self.share: int | None = None
        first = cells[0].config
        self._stages = None if first.init_from else stages
        self._total = stage_end(first.full_schedule(self._stages), len(first.full_schedule(self._stages)))
        self._log_start = 0
        self._order = {
            "runs": {str(run.path): cell.config.to_json() for run, cell in zip(self.runs, cells, strict=True)},
            "stages": self._stages,
            "measure": asdict(measure),
            "datasets_dir": str(datasets_dir) if datasets_dir else None,
        }

    @property
    def is_running(self) -> bool:
        return self.process is not None and not self.ended

    def can_start(self, work: Sequence["_Work"]) -> bool:
        """Not started yet, and not waiting for the run that it starts from."""
        if self.process is not None or self.ended:
            return False
        source = self.cells[0].source
        return not any(cell.config == source for other in work if not other.ended for cell in other.cells)

    def start(self, share: int, cores: Sequence[int]) -> None:
        """Starts its process on these cores, the share of this number."""
        source = self.cells[0].source
        done, needed = source_stages(self.cells[0], self.results_dir)
        if source is not None and not self.runs[0].exists and done < needed:
            self._fail(f"not begun: {source.name()}, which it starts from, has {done} of {needed} stages")
            return
        self.share = share
        with open(self.log_path, "ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", CELL_MODULE, json.dumps({**self._order, "cores": list(cores)})],
                # Held open and never written to: it closes when this process dies, however it does.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches this process alone, which passes it on: each is told once.
                start_new_session=True,
            )

    def stop(self) -> bool:
        """Tells its process, if one is running, to save and end; returns whether one is."""
        if self.process is None or self.process.poll() is not None:
            return False
        self.stopping = True
        # It may have ended by itself in this moment.
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return True

    def poll(self) -> None:
        if self.process is None or self.ended or self.process.poll() is None:
            return
        if self.process.returncode == 0:
            self.ended = True
        else:
            self._fail(f"{self._last_error()} (all that it said: {self.log_path})")

    def _fail(self, message: str) -> None:
        self.failure, self.ended = f"{', '.join(run.path.name for run in self.runs)}: {message}", True

    def _last_error(self) -> str:
        with open(self.log_path, "rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").split("\n")
        last = [line.split(": ", 2)[2] for line in lines if line.startswith(("iwae: error: ", "iwae: stopped: "))]
        assert self.process is not None
        return last[-1] if last else f"ended with status {self.process.returncode}"

    def progress(self) -> list[CellProgress]:
        """How far each of its cells is."""
        return [self._progress_of(cell, run) for cell, run in zip(self.cells, self.runs, strict=True)]

    def _progress_of(self, cell: Cell, run: Run) -> CellProgress:
        epochs = 0
        # What is wrong with a run is for its own process to say; the others go on.
        with contextlib.suppress(IWAEError, OSError):
            epochs = min(self._total, run.metrics.epochs_done())
        if self.failure is not None:
            state = "failed"
        elif self.ended:
            state = "done"
        elif self.stopping:
            state = "stopping"
        elif self.process is None:
            state = "waiting"
        else:
            state = "training" if epochs < self._total else "measuring"
        return CellProgress(cell.config, epochs, self._total, state)
