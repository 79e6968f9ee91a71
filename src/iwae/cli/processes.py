"""What `iwae sweep`, `iwae paper run` and `iwae show --watch` share: runs trained here or on a cluster, and watched."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.table import Table
from tyro.conf import UseAppendAction

from iwae.cli.app import fail
from iwae.cli.console import print_line
from iwae.errors import IWAEError
from iwae.io.text import printable
from iwae.runs.orders import LOG_SUFFIX, Order
from iwae.runs.progress import RunProgress, State

WATCH_SECONDS = 2.0

On = Literal["local", "slurm"]
SlurmOptions = UseAppendAction[tuple[str, ...]]


def check_place(on: On, slurm: Sequence[str]) -> None:
    """Raises IWAEError where options of sbatch are none or go nowhere, or a cluster is wanted that is not here."""
    if slurm and on != "slurm":
        raise IWAEError("`slurm` has options of sbatch, and goes with `on` slurm")
    if on == "slurm":
        from iwae.runs.slurm import check_slurm, sbatch_parameters

        sbatch_parameters(sbatch_options(slurm))
        check_slurm()


def carry_out(orders: Sequence[Order], directory: Path, *, on: On, jobs: int | None, slurm: Sequence[str]) -> list[str]:
    """Has orders carried out, here until all are done, or by a cluster's queue; returns what failed, a line each. Where
    that is was checked by `check_place`, before anything was made.
    """
    if not orders:
        return []
    console = Console(stderr=True)
    if on == "slurm":
        from iwae.runs.slurm import submit_orders

        arrays, there = submit_orders(orders, directory, sbatch_options(slurm), jobs)
        if there:
            print_line(console, f"In the queue or running already: {len(there)} runs.")
        if arrays:
            count = sum(len(order.runs) for order in orders) - len(there)
            print_line(console, f"Submitted: {count} runs, Slurm's job {', '.join(arrays)}.")
        print_line(console, f"How far they are: iwae show {directory} --watch. Once done: the same command again.")
        return []
    from iwae.runs.processes import run_orders

    if not console.is_terminal:
        print_line(console, f"What the process of a run says: {orders[0].log_path.with_name(f'RUN.{LOG_SUFFIX}')}")
    with Live(console=console, auto_refresh=False, transient=True) as live:
        return run_orders(orders, jobs=jobs or 1, on_progress=_shown(live, without="waiting"))


def fail_each(failures: Sequence[str]) -> int:
    """Prints a line for each failure, and returns the exit status."""
    for failure in failures:
        fail(failure, 1)
    return 1 if failures else 0


def sbatch_options(given: Sequence[str]) -> dict[str, str]:
    """`partition=gpu,time=10` as names and values; a comma in a value is one where no name follows."""
    options = {}
    for text in (part for one in given for part in re.split(r",(?=[\w-]+=)", one)):
        name, equals, value = text.partition("=")
        if not equals or not name.strip("-") or not value:
            raise IWAEError(f"`slurm` must be options of sbatch such as partition=gpu,time=4:00:00, got {text!r}")
        options[name.strip().lstrip("-")] = value
    return options


def watch(look: Callable[[], list[RunProgress]]) -> None:
    """Shows how far runs are until all are done or have failed."""
    with Live(console=Console(), auto_refresh=False) as live:
        show = _shown(live)
        while True:
            progress = look()
            show(progress)
            if all(one.is_over for one in progress):
                return
            time.sleep(WATCH_SECONDS)


def _shown(live: Live, without: State | None = None) -> Callable[[Sequence[RunProgress]], None]:
    """What shows how far runs are: a table that changes, or lines where there is no terminal, one when a run's state
    changes to another than `without`.
    """
    console, said = live.console, dict[str, str]()

    def show(progress: Sequence[RunProgress]) -> None:
        if console.is_terminal:
            live.update(progress_table(progress, console.height - 4), refresh=True)
            return
        for one in progress:
            if one.state not in (said.get(one.name), without):
                print_line(console, f"{one.name}: {one.state} {one.detail}".rstrip())
                said[one.name] = one.state

    return show


def progress_table(progress: Sequence[RunProgress], most_rows: int | None = None) -> Table:
    """How far the runs are that do not wait; where there are too many, without those that are done."""
    done = sum(one.state == "done" for one in progress)
    title = f"{done} of {len(progress)} runs finished"
    if waiting := sum(one.state == "waiting" for one in progress):
        title += f", {waiting} waiting"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("run", "state", "epochs", *([""] if any(one.detail for one in progress) else [])):
        table.add_column(heading, overflow="fold")
    shown = [one for one in progress if one.state != "waiting"]
    if most_rows is not None and len(shown) > most_rows:
        shown = [one for one in shown if one.state != "done"][: max(1, most_rows)]
    for one in shown:
        cells = (one.name, one.state, f"{one.epochs}/{one.total}", one.detail)
        table.add_row(*map(printable, cells[: len(table.columns)]))
    return table
