"""Runs trained by processes of their own on this machine, some at once."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from iwae.runs.directory import Run
from iwae.runs.orders import Order
from iwae.runs.progress import RunProgress, State, epochs_of, last_said
from iwae.runs.signals import SignalWatch

POLL_SECONDS = 0.5
ENDING_SECONDS = 0.05
# A module that is only named here: such a process has a command line's manners.
WORKER = "iwae.cli.worker"

OnProgress = Callable[[Sequence[RunProgress]], None]


def run_orders(orders: Sequence[Order], *, jobs: int = 1, on_progress: OnProgress | None = None) -> list[str]:
    """Carries out orders in `jobs` processes at once; returns what failed, a line each.

    Each process has its share of the cores. Unfinished runs are continued. A run that starts from another of these
    waits for it. What a process says goes to its order's log.

    On SIGINT, SIGTERM and their like all processes are told to save and stop, and Interrupted is raised once they have;
    a further signal kills those that are left. Should this process die, they save and stop by themselves.
    """
    work = [_Work(order) for order in orders]
    shares = divided_cores(max(1, min(jobs, len(work))))
    with SignalWatch(hold=True) as signals:
        try:
            while any(not job.ended for job in work) and signals.received is None:
                for job in work:
                    free = sorted(set(range(len(shares))) - {other.share for other in work if other.is_running})
                    if free and job.can_start(work):
                        job.start(free[0], shares[free[0]])
                if on_progress is not None:
                    on_progress(_progress(work))
                for job in work:
                    job.poll()
                time.sleep(POLL_SECONDS)
        finally:
            killed = _end(work, signals, on_progress)
        lost = "what was done since the last checkpoint is lost" if killed else "all is saved"
        signals.check(f"{lost}. The same command continues where it stopped")
    if on_progress is not None:
        on_progress(_progress(work))
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


def _end(work: Sequence["_Work"], signals: SignalWatch, on_progress: OnProgress | None) -> bool:
    """Tells every running process to save and end before it waits for any; kills them at a further signal.

    Returns whether any was killed.
    """
    running = [job.process for job in work if job.stop() and job.process is not None]
    if running and on_progress is not None:
        on_progress(_progress(work))
    killed = False
    while any(process.poll() is None for process in running):
        if signals.count > 1 and not killed:
            for process in running:
                process.kill()
            killed = True
        time.sleep(ENDING_SECONDS)
    return killed


def _progress(work: Sequence["_Work"]) -> list[RunProgress]:
    return [progress for job in work for progress in job.progress()]


class _Work:
    """The process of one order."""

    def __init__(self, order: Order):
        self.order = order
        self.runs = [Run(path) for path in order.runs]
        self.process: subprocess.Popen[bytes] | None = None
        self.failure: str | None = None
        self.ended = False
        self.stopping = False
        self.share: int | None = None
        self._log_start = 0

    @property
    def is_running(self) -> bool:
        return self.process is not None and not self.ended

    def can_start(self, work: Sequence["_Work"]) -> bool:
        """Not started yet, and not waiting for the run that it starts from."""
        if self.process is not None or self.ended:
            return False
        source = self.order.first.init_from
        return not any(os.path.abspath(run.path) == source for job in work if not job.ended for run in job.runs)

    def start(self, share: int, cores: Sequence[int]) -> None:
        """Starts its process on these cores, the share of this number."""
        self.share = share
        self.order.log_path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.order.log_path, "ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", WORKER, self.order.to_text(), ",".join(map(str, cores))],
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
        self.ended = True
        if self.process.returncode != 0:
            said = last_said(self.order.log_path, self._log_start)[0]
            reason = said or f"ended with status {self.process.returncode}"
            names = ", ".join(run.path.name for run in self.runs)
            self.failure = f"{names}: {reason} (all that it said: {self.order.log_path})"

    def progress(self) -> list[RunProgress]:
        """How far each of its runs is."""
        schedule = self.order.first.full_schedule(self.order.stages)
        found = [(run, *epochs_of(run, schedule)) for run in self.runs]
        return [RunProgress(run.path.name, epochs, total, self._state(epochs < total)) for run, epochs, total in found]

    def _state(self, trains: bool) -> State:
        if self.failure is not None:
            return "failed"
        if self.ended:
            return "done"
        if self.stopping:
            return "stopping"
        if self.process is None:
            return "waiting"
        return "training" if trains else "measuring"
