"""`iwae paper`: the paper's tables, ours beside them, and what trains the rest."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.live import Live
from tyro.conf import Positional

from iwae.cli.commands import default_results_dir
from iwae.cli.console import print_line
from iwae.cli.paper_tables import MARK, progress_table, terminal_tables
from iwae.data import canonical_name
from iwae.errors import IWAEError, check_count
from iwae.io.text import printable
from iwae.paper import TABLES, Cell, CellStatus, Table, cells_of, status_of, to_json, to_markdown
from iwae.paper.plan import Plan, make_plan
from iwae.paper.runner import train_cells
from iwae.paper.status import PARTIAL, notes
from iwae.runs.config import MeasureOptions

TITLES: dict[Table, str] = {
    "1": "Table 1: test NLL in nats (active units)",
    "2": "Table 2: trained on from another model's last state",
    "fixed": "Fixed binarization of MNIST",
}
NOTE = (
    "A figure marked `{mark}` was not trained and measured as the paper did: it is no reproduction. gap: how many"
    " nats the test NLL lies above the training NLL."
)
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
    jobs: int = 1
    """Run: train this many at once."""
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
        check_count("--jobs", self.jobs)
        if self.stages is not None:
            check_count("--stages", self.stages)
        results_dir = self.results_dir.resolve()
        cells = self._cells(results_dir)
        failures = self._train(cells, results_dir) if self.action == "run" else []
        statuses = [status_of(cell, results_dir) for cell in cells]
        self._print(statuses)
        unreadable = [status.cell.config.name() for status in statuses if status.problem is not None]
        if unreadable and self.action == "list":
            failures.append(f"not readable: {', '.join(unreadable)}")
        for failure in failures:
            print_line(Console(stderr=True), f"iwae: error: {failure}")
        return 1 if failures else 0

    def _cells(self, results_dir: Path) -> list[Cell]:
        datasets = {canonical_name(name) for name in self.datasets}

        def wanted(cell: Cell) -> bool:
            config = cell.config
            return (
                (not datasets or config.dataset in datasets)
                and (not self.models or config.model in self.models)
                and (not self.k or config.k in self.k)
                and (not self.layers or config.layers in self.layers)
            )

        cells = [c for t in self.table for c in cells_of(t, results_dir=results_dir, seed=self.seed) if wanted(c)]
        if not cells:
            raise IWAEError("the paper has no result like that: see `iwae paper` for what it has")
        return cells

    def _train(self, cells: list[Cell], results_dir: Path) -> list[str]:
        """Trains what is not finished and returns what failed, a line each."""
        measure = MeasureOptions(self.test_samples, self.test_examples)
        plan = make_plan(cells, results_dir, self.stages, measure)
        console = Console(stderr=True)
        for line in self._announcement(plan):
            print_line(console, line)
        if not plan.work:
            return list(plan.blocked)
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            failures = train_cells(
                plan,
                results_dir,
                stages=self.stages,
                measure=measure,
                jobs=self.jobs,
                datasets_dir=self.datasets_dir.resolve() if self.datasets_dir else None,
                on_cells=lambda progress: live.update(progress_table(progress)),
            )
        return [*plan.blocked, *failures]

    def _announcement(self, plan: Plan) -> list[str]:
        at_once = f", {self.jobs} at once" if self.jobs > 1 and plan.work else ""
        others = len(plan.left_out) + len(plan.blocked)
        return [
            f"To train or measure: {_runs(len(plan.work))}{at_once}. Finished: {len(plan.finished)}."
            f" Not begun: {others}{'.' if not others else ', because:'}",
            *(f"  {reason}" for reason in (*plan.left_out, *plan.blocked)),
        ]

    def _print(self, statuses: list[CellStatus]) -> None:
        if self.format == "json":
            print(json.dumps(to_json(statuses), indent=2))
            return
        console = Console()
        for table in self.table:
            part = [status for status in statuses if status.cell.table == table]
            if not part:
                continue
            if self.format == "markdown":
                print(f"**{TITLES[table]}**\n\n{to_markdown(part)}\n")
                continue
            console.print(f"{TITLES[table]}; seed {self.seed}", style="bold underline", highlight=False)
            for grouped in terminal_tables(part):
                console.print(grouped)
                console.print()
        if self.format == "markdown":
            print(NOTE.format(mark=PARTIAL))
            return
        console.print(NOTE.format(mark=MARK), highlight=False, markup=False)
        if any(status.measured_early for status in statuses):
            console.print(EARLIER)
        for line in notes(statuses, MARK):
            console.print(printable(line), highlight=False, markup=False)


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"
