"""`iwae paper`: the paper's tables, ours beside them, and what trains the rest."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from iwae.cli.console import print_line
from iwae.cli.options import default_results_dir
from iwae.cli.processes import On, SlurmOptions, carry_out, check_place, fail_each
from iwae.cli.registry import check_installed
from iwae.data import canonical_name
from iwae.errors import IWAEError, check_count
from iwae.io.text import counted, printable
from iwae.paper.cells import TABLES, Cell, cells_of
from iwae.paper.plan import make_plan
from iwae.paper.runner import orders_of
from iwae.paper.status import (
    PARTIAL,
    CellStatus,
    gap_text,
    model_text,
    notes,
    ours_text,
    paper_text,
    status_of,
    to_json,
    to_markdown,
)
from iwae.runs.options import MeasureOptions

TITLES = {
    "1": "Table 1: test NLL in nats (active units)",
    "2": "Table 2: trained on from another model's last state",
    "fixed": "Fixed binarization of MNIST",
}
NOTE = (
    "A figure marked `{mark}` was not trained and measured as the paper did: it is no reproduction. gap: how many"
    " nats the test NLL lies above the training NLL."
)
MARK = "*"
# Name and width: the same in all tables, so that they stand under each other.
COLUMNS = (("model", 8), ("k", 2), ("paper", 13), ("ours", 15), ("active", 6), ("gap", 13), ("stages", 7))
EARLIER = "A number in brackets beside the stages: the figure is the one after that stage."


@dataclass(frozen=True)
class Paper:
    """List the paper's results beside ours, or train what is missing.

    `iwae paper` lists; `iwae paper run` trains the cells that are not finished.
    """

    action: Positional[Literal["list", "run"]] = "list"
    """What to do."""
    table: tuple[Literal["1", "2", "fixed"], ...] = TABLES
    """Which of the paper's tables."""
    datasets: tuple[str, ...] = ()
    """Only these datasets."""
    models: tuple[Literal["vae", "iwae"], ...] = ()
    """Only these objectives."""
    k: tuple[int, ...] = ()
    """Only these numbers of samples."""
    layers: tuple[int, ...] = ()
    """Only these numbers of stochastic layers."""
    seed: int = 0
    """Seed of the runs."""
    stages: int | None = None
    """Run: stop after this many of the eight stages. Table 2 starts from all eight, and is then left out."""
    jobs: int | None = None
    """Run: train this many at once (default: 1; on slurm as many as it lets)."""
    on: On = "local"
    """Run: in processes on this machine, or as jobs of a Slurm cluster."""
    slurm: SlurmOptions = ()
    """Run: options of sbatch for these jobs, such as partition=gpu,time=4:00:00,gres=gpu:1."""
    test_samples: int = 5000
    """Run: measure with this many importance samples; fewer than the paper's 5000 are marked in the tables."""
    test_examples: int | None = None
    """Run: measure the first so many test examples (default: all); fewer are marked in the tables."""
    format: Literal["table", "markdown", "json"] = "table"
    """How to print the tables."""
    results_dir: Path = field(default_factory=default_results_dir)
    """Where runs are kept (also: IWAE_RESULTS_DIR)."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first (also: IWAE_DATASETS_DIR)."""

    def run(self, arguments: list[str]) -> int:
        """Lists, or trains and then lists. The status is 1 when a run failed or could not be read."""
        check_count("jobs", self.jobs, optional=True)
        check_count("stages", self.stages, optional=True)
        results_dir = self.results_dir.resolve()
        cells = self._cells(results_dir)
        failures = self._train(cells, results_dir) if self.action == "run" else []
        statuses = [status_of(cell, results_dir) for cell in cells]
        self._print(statuses)
        unreadable = [status.cell.config.name() for status in statuses if status.problem is not None]
        if unreadable and self.action == "list":
            failures.append(f"not readable: {', '.join(unreadable)}")
        return fail_each(failures)

    def _cells(self, results_dir: Path) -> list[Cell]:
        datasets = tuple(map(canonical_name, self.datasets))
        chosen = {"dataset": datasets, "model": self.models, "k": self.k, "layers": self.layers}
        cells = [cell for table in self.table for cell in cells_of(table, results_dir=results_dir, seed=self.seed)]
        cells = [cell for cell in cells if all(not c or getattr(cell.config, n) in c for n, c in chosen.items())]
        if not cells:
            raise IWAEError("the paper has no result like that: see `iwae paper` for what it has")
        return cells

    def _train(self, cells: list[Cell], results_dir: Path) -> list[str]:
        """Trains what is not finished and returns what failed, a line each."""
        measure = MeasureOptions(self.test_samples, self.test_examples)
        check_installed("iwae paper run", "report")
        plan = make_plan(cells, results_dir, self.stages, measure)
        reasons = (*plan.left_out, *plan.blocked)
        left = f" Left out: {len(reasons)}, because:" if reasons else ""
        count = counted(len(plan.work), "run")
        check_place(self.on, self.slurm)
        console = Console(stderr=True)
        print_line(console, f"To train or measure: {count}. Finished: {len(plan.finished)}.{left}")
        for reason in reasons:
            print_line(console, f"  {reason}")
        orders = orders_of(
            plan,
            results_dir,
            stages=self.stages,
            measure=measure,
            # In a queue every run is a job of its own.
            jobs=len(plan.work) if self.on == "slurm" else self.jobs or 1,
            datasets_dir=self.datasets_dir.resolve() if self.datasets_dir else None,
        )
        failures = carry_out(orders, results_dir, on=self.on, jobs=self.jobs, slurm=self.slurm)
        return [*plan.blocked, *failures]

    def _print(self, statuses: list[CellStatus]) -> None:
        if self.format == "json":
            print(json.dumps(to_json(statuses), indent=2))
            return
        console, markdown = Console(), self.format == "markdown"
        for table in self.table:
            part = [status for status in statuses if status.cell.table == table]
            if part and markdown:
                print(f"**{TITLES[table]}**\n\n{to_markdown(part)}\n")
            elif part:
                console.print(f"{TITLES[table]}; seed {self.seed}", style="bold underline", highlight=False)
                # One for each kind of data and number of layers, in the order of the cells.
                for (data, layers), rows in groupby(part, lambda status: (status.data, status.cell.config.layers)):
                    console.print(_table(data, layers or 1, list(rows)))
                    console.print()
        if markdown:
            print(NOTE.format(mark=PARTIAL))
            return
        early = [EARLIER] if any(status.measured_early for status in statuses) else []
        for line in (NOTE.format(mark=MARK), *early, *notes(statuses, MARK)):
            console.print(printable(line), highlight=False, markup=False)


def _table(data: str, layers: int, statuses: Sequence[CellStatus]) -> Table:
    """A table that fits a terminal of 80 columns."""
    title = f"{data}, {counted(layers, 'layer')}"
    gap = statuses[0].published_gap
    if gap is not None:
        title += f" (the paper's gap, test - training: up to {gap:g})"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name, width in COLUMNS:
        table.add_column(name, min_width=width, no_wrap=True)
    for status in statuses:
        table.add_row(*_row(status))
    return table


def _row(status: CellStatus) -> tuple[str, ...]:
    # Which stage the figure is of, where the run is further.
    measured = f" ({status.measured_stages})" if status.measured_early else ""
    return (
        model_text(status),
        str(status.cell.config.k),
        paper_text(status),
        ours_text(status, MARK),
        status.active,
        gap_text(status, MARK),
        f"{status.stages_done}/{status.stages_total}{measured}",
    )
