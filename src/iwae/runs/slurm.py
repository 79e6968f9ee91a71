"""Orders in the queue of a Slurm cluster, through submitit: arrays of jobs, each of which holds a string alone."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TypedDict

from iwae.errors import IWAEError, needs_extra
from iwae.io.files import write_json
from iwae.io.json import read_json
from iwae.runs.orders import CommandOrder, Order
from iwae.runs.processes import WORKER

FOLDER = "slurm"
RECORD = "submitted.json"
# Of Slurm's own limit, 1001, where a cluster has not set another.
MOST_IN_ARRAY = 1000
OURS = ("array", "output", "error")
SECONDS_TO_ANSWER = 60
SECONDS_TO_RETRY = 5
UNITS = (1440, 60, 1, 1 / 60)  # Days, hours, minutes and seconds, in minutes.


def run_job(order: str) -> None:
    """What a job calls: carries out the text of an order. Where Slurm has warned that the time is over, or that others
    need the node, all is saved, and the job is queued again.
    """
    status = import_module(WORKER).in_job(order)
    if status in (128 + signal.SIGUSR1, 128 + signal.SIGUSR2):
        _requeue()
    if status != 0:
        raise SystemExit(status)


def _requeue() -> None:
    from submitit import JobEnvironment

    words = ["scontrol", "requeue", JobEnvironment().job_id]
    end = time.monotonic() + SECONDS_TO_ANSWER
    # A controller that is started anew answers in a while.
    while subprocess.run(words, check=False).returncode != 0 and time.monotonic() < end:
        time.sleep(SECONDS_TO_RETRY)


class SubmittedRecord(TypedDict):
    """`submitted.json`: the job of each run, by the run's directory."""

    jobs: dict[str, str]


def submit_orders(
    orders: Sequence[Order | CommandOrder], directory: Path, parameters: Mapping[str, str], jobs: int | None = None
) -> tuple[list[str], list[str]]:
    """Queues orders as arrays of which `jobs` run at once (default: as many as Slurm lets); returns the ids of the
    arrays, and the names of runs that were in the queue or running already, and are left there.

    `parameters` are options of sbatch, without dashes. What submitit writes, and what was submitted, is in
    `<directory>/slurm`. A run that starts from another of the orders waits for it.

    Raises IWAEError where submitit or Slurm is not there, or refuses.
    """
    check_slurm()
    own = sbatch_parameters(parameters)
    folder = directory.resolve() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    there = queued_runs(directory)
    names = [path.name for order in orders for path in order.works_on if str(path) in there]
    new = [order for order in orders if not any(str(path) in there for path in order.works_on)]
    mine = {str(path) for order in new for path in order.works_on}
    first = [order for order in new if order.waits_for not in mine]
    arrays: list[str] = []
    submitted = dict(there)
    for part in (first, [order for order in new if order not in first]):
        waits = sorted({submitted[source] for order in part if (source := order.waits_for) in submitted})
        then = {"dependency": f"afterany:{':'.join(waits)}"} if waits else {}
        for start in range(0, len(part), MOST_IN_ARRAY):
            some = part[start : start + MOST_IN_ARRAY]
            ids = _submit(some, folder, own, jobs, then)
            submitted |= {str(path): number for order, number in zip(some, ids, strict=True) for path in order.works_on}
            write_json(folder / RECORD, {"jobs": submitted})
            arrays.append(ids[0].partition("_")[0])
    return arrays, names


def _submit(
    orders: Sequence[Order | CommandOrder],
    folder: Path,
    own: Mapping[str, object],
    jobs: int | None,
    then: Mapping[str, str],
) -> list[str]:
    from submitit import SlurmExecutor

    executor = SlurmExecutor(folder)
    executor.update_parameters(**own, **then, **({} if jobs is None else {"array_parallelism": jobs}))
    try:
        return [job.job_id for job in executor.map_array(run_job, [order.to_text() for order in orders])]
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or ["no reason given"]
        raise IWAEError(f"Slurm refused the jobs: {lines[-1].strip()}") from None


def check_slurm() -> None:
    """Raises IWAEError where submitit or Slurm's programs are not there."""
    needs_extra("submitit", "slurm")
    if shutil.which("sbatch") is None:
        raise IWAEError("`on` slurm: there is no sbatch on this machine, submit from one where Slurm's programs are")


def sbatch_parameters(given: Mapping[str, str]) -> dict[str, object]:
    """Options of sbatch as submitit has them. Raises IWAEError for those that are not the user's to set."""
    options = {name.replace("_", "-"): value for name, value in given.items()}
    if ours := [name for name in OURS if name in options]:
        raise IWAEError(f"`slurm` {ours[0]}: that is set here, leave it out")
    # Without a time limit the partition's holds, and not submitit's five minutes.
    limit = options.pop("time", None)
    own: dict[str, object] = {"job_name": "iwae", "time": None if limit is None else minutes(limit)}
    if (cores := options.get("cpus-per-task")) is not None:
        # srun does not take it over from sbatch since Slurm 22.05.
        own["srun_args"] = [f"--cpus-per-task={cores}"]
    return {**own, "additional_parameters": {"requeue": True, **options}}


def minutes(text: str) -> int:
    """Slurm's minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or
    days-hours:minutes:seconds, in whole minutes. Raises IWAEError for anything else.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip(), re.ASCII)
    if found is None:
        raise IWAEError(f"`slurm` time must be minutes, hours:minutes:seconds or days-hours, got {text!r}")
    days, *parts = found.groups()
    numbers = [int(part) for part in parts if part is not None]
    first = 1 if days is not None or len(numbers) == 3 else 2
    total = int(days or 0) * UNITS[0] + sum(n * unit for n, unit in zip(numbers, UNITS[first:], strict=False))
    return max(1, -int(-total // 1))


def queued_runs(directory: Path) -> dict[str, str]:
    """The job of each run that was submitted with this directory and is in Slurm's queue or running, by the run's
    directory. Raises IWAEError where Slurm does not answer.
    """
    path = directory.resolve() / FOLDER / RECORD
    if not path.exists():
        return {}
    record = read_json(path, SubmittedRecord, "delete it once none of its jobs is in the queue")
    words = ["squeue", f"--user={os.getuid()}", "--noheader", "--array", "--format=%i"]
    try:
        answer = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=False)
        said = answer.stderr.strip() if answer.returncode else ""
    except (OSError, subprocess.SubprocessError) as error:
        raise IWAEError(f"Slurm does not answer ({error}): give the same command again once it does") from None
    if answer.returncode:
        raise IWAEError(f"Slurm does not answer ({said}): give the same command again once it does")
    there = set(answer.stdout.split())
    return {run: job for run, job in record["jobs"].items() if job in there}
