"""Trains the cells of the paper's tables that are missing, each as a process of its own, some at once."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iwae.paper.cells import Cell
from iwae.paper.status import status_of
from iwae.runs.config import RunConfig
from iwae.runs.directory import RunDirectory
from iwae.runs.interruption import Interrupted, SignalWatch
from iwae.schedule import stage_end

POLL_SECONDS = 0.5
LOG_NAME = "train.log"


@dataclass(frozen=True)
class CellProgress:
    """How far one run is: `epochs` of `total` are done. `state` is waiting, training, done or failed."""

    config: RunConfig
    epochs: int
    total: int
    state: str


OnCells = Callable[[Sequence[CellProgress]], None]


def train_command(config: RunConfig, results_dir: Path, stages: int | None, extra: Sequence[str] = ()) -> list[str]:
    """The command line that trains one configuration."""
    command = [sys.executable, "-m", "iwae", "train", "--results-dir", str(results_dir)]
    for name in ("dataset", "model", "k", "layers", "schedule", "seed"):
        command += [f"--{name}", str(getattr(config, name))]
    for name in ("latent", "hidden"):
        if values := getattr(config, name):
            command += [f"--{name}", *map(str, values)]
    if config.batch_size != RunConfig.batch_size:
        command += ["--batch-size", str(config.batch_size)]
    if config.init_from is not None:
        command += ["--init-from", config.init_from, "--epochs", str(config.epochs)]
        command += ["--learning-rate", str(config.learning_rate)]
    elif stages is not None:
        command += ["--stages", str(stages)]
    return [*command, *extra]


def train_cells(
    cells: Sequence[Cell],
    results_dir: Path,
    *,
    stages: int | None = None,
    jobs: int = 1,
    extra: Sequence[str] = (),
    on_cells: OnCells | None = None,
) -> list[str]:
    """Trains every cell that is not finished, `jobs` at once, in their order; returns what failed, a line each.

    Finished runs are left alone and unfinished ones continued. A cell that starts from another run waits for it.
    Two cells of one configuration (k = 1 of both objectives has two) are two runs. On SIGINT or SIGTERM the
    processes are told to save and stop, and Interrupted is raised. `extra` is handed to every `iwae train`.
    """
    results_dir.mkdir(parents=True, exist_ok=True)
    work = [_Work(cell, results_dir, stages) for cell in cells]
    with SignalWatch() as signals:
        try:
            while any(not job.ended for job in work):
                running = sum(job.process is not None and not job.ended for job in work)
                for job in work:
                    if running < jobs and job.can_start(work):
                        job.start(extra)
                        running += not job.ended
                if on_cells is not None:
                    on_cells([job.progress() for job in work])
                if signals.received is not None:
                    raise Interrupted(
                        "interrupted; all is saved. The same command continues where it stopped", signals.received
                    )
                for job in work:
                    job.poll()
                time.sleep(POLL_SECONDS)
        finally:
            for job in work:
                job.stop()
    if on_cells is not None:
        on_cells([job.progress() for job in work])
    return [job.failure for job in work if job.failure is not None]


class _Work:
    """One cell's process."""

    def __init__(self, cell: Cell, results_dir: Path, stages: int | None):
        self.cell, self.results_dir, self.stages = cell, results_dir, stages
        self.run = RunDirectory(cell.directory(results_dir))
        self.process: subprocess.Popen[bytes] | None = None
        self.failure: str | None = None
        self.ended = self._is_finished()

    @property
    def _schedule(self):
        return self.cell.config.full_schedule(None if self.cell.config.init_from else self.stages)

    def _is_finished(self) -> bool:
        measured = status_of(self.cell, self.results_dir).measured_stages
        return measured is not None and measured >= len(self._schedule)

    def can_start(self, work: Sequence["_Work"]) -> bool:
        """Not started yet, and not waiting for the run that it starts from."""
        if self.process is not None or self.ended:
            return False
        return not any(other.cell.config == self.cell.source and not other.ended for other in work)

    def start(self, extra: Sequence[str]) -> None:
        source = self.cell.source
        if source is not None and not RunDirectory(self.results_dir / source.name()).exists:
            command = " ".join(train_command(source, self.results_dir, None)[2:])
            self._fail(f"{self.run.path.name}: its source is missing; make it with: iwae {command.partition(' ')[2]}")
            return
        log_path = self.results_dir / f"{self.run.path.name}.{LOG_NAME}"
        with open(log_path, "ab") as log:
            self.process = subprocess.Popen(
                train_command(self.cell.config, self.results_dir, self.stages, extra),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches this process alone, which passes it on: each is told once.
                start_new_session=True,
            )

    def poll(self) -> None:
        if self.process is None or self.ended or self.process.poll() is None:
            return
        if self.process.returncode == 0:
            self.ended = True
        else:
            self._fail(f"{self.run.path.name}: {self._last_line()}")

    def _fail(self, message: str) -> None:
        self.failure, self.ended = message, True

    def _last_line(self) -> str:
        lines = (self.results_dir / f"{self.run.path.name}.{LOG_NAME}").read_text(errors="replace").split("\n")
        errors = [line for line in lines if line.startswith("iwae: error: ")]
        assert self.process is not None
        return errors[-1].removeprefix("iwae: error: ") if errors else f"ended with status {self.process.returncode}"

    def stop(self) -> None:
        """Tells a running process to save and end, and waits for it."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            self.process.wait()

    def progress(self) -> CellProgress:
        total = stage_end(self._schedule, len(self._schedule))
        if self.failure is not None:
            state = "failed"
        elif self.ended:
            state = "done"
        else:
            state = "training" if self.process is not None else "waiting"
        lines = self.run.read_metrics()
        return CellProgress(self.cell.config, min(total, lines[-1]["epoch"] if lines else 0), total, state)
