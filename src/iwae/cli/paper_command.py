"""`iwae paper`: the paper's tables, ours beside them, and what trains the rest."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.table import Table as RichTable
from tyro.conf import Positional

from iwae.cli.commands import default_results_dir
from iwae.data import canonical_name
from iwae.errors import IWAEError
from iwae.paper import HEADINGS, TABLES, Cell, CellStatus, Table, cells_of, row, status_of, to_json, to_markdown
from iwae.paper.runner import CellProgress, train_cells
from iwae.runs.config import check_count

TITLES: dict[Table, str] = {
    "1": "Table 1: test NLL in nats (active units)",
    "2": "Table 2: trained on from another model's last state",
    "fixed": "Fixed binarization of MNIST",
}
NOTE = (
    "A figure marked `partial` was not trained through the paper's whole schedule: it is no reproduction. Data marked"
    " `unverified` is not the paper's."
)


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
    """Run: stop after this many of the eight stages."""
    jobs: int = 1
    """Run: train this many at once."""
    format: Literal["table", "markdown", "json"] = "table"
    """List: how to print it."""
    results_dir: Path = field(default_factory=default_results_dir)
    """Where runs are kept (also: IWAE_RESULTS_DIR)."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first (also: IWAE_DATASETS_DIR)."""

    def run(self, arguments: list[str]) -> int:
        """Lists, or trains and then lists. The status is 1 when a run failed."""
        check_count("--jobs", self.jobs)
        if self.stages is not None:
            check_count("--stages", self.stages)
        results_dir = self.results_dir.resolve()
        cells = self._cells(results_dir)
        failures = self._train(cells, results_dir) if self.action == "run" else []
        self._print([status_of(cell, results_dir) for cell in cells])
        for failure in failures:
            Console(stderr=True).print(f"iwae: error: {failure}", soft_wrap=True, highlight=False, markup=False)
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
        extra = ["--datasets-dir", str(self.datasets_dir.resolve())] if self.datasets_dir else []
        console = Console(stderr=True)
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            return train_cells(
                cells,
                results_dir,
                stages=self.stages,
                jobs=self.jobs,
                extra=extra,
                on_cells=lambda progress: live.update(_progress_table(progress)),
            )

    def _print(self, statuses: list[CellStatus]) -> None:
        console = Console()
        if self.format == "json":
            print(json.dumps(to_json(statuses), indent=2))
            return
        for table in self.table:
            part = [status for status in statuses if status.cell.table == table]
            if not part:
                continue
            if self.format == "markdown":
                print(f"**{TITLES[table]}**\n\n{to_markdown(part)}\n")
            else:
                console.print(_terminal_table(TITLES[table], part))
        print(NOTE) if self.format == "markdown" else console.print(NOTE)


def _terminal_table(title: str, statuses: list[CellStatus]) -> RichTable:
    table = RichTable(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading)
    for status in statuses:
        table.add_row(*row(status))
    return table


def _progress_table(progress: Sequence[CellProgress]) -> RichTable:
    done = sum(cell.state == "done" for cell in progress)
    table = RichTable(title=f"{done} of {len(progress)} runs finished", title_justify="left", box=None, pad_edge=False)
    for heading in ("run", "state", "epochs"):
        table.add_column(heading)
    for cell in progress:
        if cell.state != "waiting":
            table.add_row(cell.config.name(), cell.state, f"{cell.epochs}/{cell.total}")
    return table
