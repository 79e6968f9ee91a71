"""`iwae sweep`: runs over a grid of options and seeds, here or on a cluster, and the table of what came of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from tyro.conf import Positional, UseAppendAction

from iwae.cli import tables
from iwae.cli.console import print_line, print_lines, print_records
from iwae.cli.options import Integers, Settings, default_results_dir
from iwae.cli.processes import On, SlurmOptions, carry_out, check_place, fail_each
from iwae.errors import IWAEError, check_count
from iwae.runs.grid import Definition, label, read_axes, read_file, read_grid, read_options
from iwae.runs.options import MeasureOptions, TrainOptions
from iwae.runs.sweep import OF_THE_DATA, Sweep


@dataclass(frozen=True)
class SweepCommand:
    """Train a run for every combination of a grid's values and every seed, and table the means over seeds.

    The same command goes on where it stopped. Options of `iwae train` hold for all runs.
    """

    file: Positional[Path | None] = None
    """A TOML or JSON file with tables `options` and `grid` and a list `seeds`; what is given beside it wins."""
    grid: UseAppendAction[tuple[str, ...]] = ()
    """An option of `iwae train` and its values, such as k=1,5,50; give it again for further options. Numbers of several
    layers are joined by +, as in latent=50,100+50."""
    seeds: Integers = ()
    """Seeds of every combination, such as 0:5 or 0,1,2 (default: 0)."""
    configuration: Settings = field(default_factory=Settings)
    stages: int | None = None
    """Stop after this many of the schedule's stages (default: all)."""
    save_every: float = TrainOptions.save_every
    """Seconds between checkpoints within a stage."""
    measuring: MeasureOptions = field(default_factory=MeasureOptions)
    on: On = "local"
    """In processes on this machine, or as jobs of a Slurm cluster."""
    jobs: int | None = None
    """Train this many at once, here each on its share of the cores (default: 1; on slurm as many as it lets)."""
    slurm: SlurmOptions = ()
    """Options of sbatch for the jobs, such as partition=gpu,time=4:00:00,gres=gpu:1."""
    format: tables.Format = "table"
    """How to print the table: json and csv have every figure."""
    sweep_dir: Path | None = None
    """The sweep's directory (default: a name made from the grid, or the file's, inside --results-dir)."""
    results_dir: Path = field(default_factory=default_results_dir)
    """Where runs are kept (also: IWAE_RESULTS_DIR)."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first (also: IWAE_DATASETS_DIR)."""

    def run(self, arguments: list[str]) -> int:
        """Trains what is missing, and prints and writes the table. The status is 1 when a run failed."""
        check_count("jobs", self.jobs, optional=True)
        TrainOptions(stages=self.stages, save_every=self.save_every)
        check_place(self.on, self.slurm)
        definition = self._definition()
        sweep = Sweep.create(self._directory(definition), definition, self.stages, self.measuring)
        datasets_dir = self.datasets_dir.resolve() if self.datasets_dir else None
        orders = sweep.unfinished(save_every=self.save_every, datasets_dir=datasets_dir)
        total = len(sweep.runs)
        print_line(Console(stderr=True), f"Sweep: {sweep.path}, {total} runs, {total - len(orders)} of them finished.")
        failures = carry_out(orders, sweep.path, on=self.on, jobs=self.jobs, slurm=self.slurm)
        found = any(row["finished"] for row in sweep.table())
        if found or self.format != "table":
            print_table(sweep, self.format)
        if found:
            written = sweep.write_table(table_text(sweep))
            print_line(Console(stderr=True), f"Written: {written}, and as .csv and .json")
        return fail_each(failures)

    def _definition(self) -> Definition:
        found = read_file(self.file) if self.file is not None else {}
        given, axes = self.configuration.given, read_grid(read_axes(self.grid))
        options = read_options(found.get("options", {}), f"{self.file}: [options]")
        grid = read_grid(found.get("grid", {}), f"{self.file}: [grid]")
        # What is given beside the file wins: an option over its axis, and an axis over its option.
        options = {name: value for name, value in options.items() if name not in axes} | given
        grid = {name: values for name, values in grid.items() if name not in given} | axes
        if not grid and not self.seeds and self.file is None:
            raise IWAEError("nothing to sweep over: give `grid`, such as k=1,5,50, `seeds`, such as 0:5, or a file")
        if "seed" in options:
            raise IWAEError(f"`seed` {options['seed']}: a sweep has `seeds`, such as 0:5")
        seeds = self.seeds or tuple(found.get("seeds", ())) or (0,)
        if len(set(seeds)) < len(seeds):
            raise IWAEError(f"`seeds` must differ, got {','.join(map(str, seeds))}")
        return Definition(options, grid, seeds)

    def _directory(self, definition: Definition) -> Path:
        if self.sweep_dir is not None:
            return self.sweep_dir
        if self.file is not None:
            return self.results_dir / self.file.stem
        return self.results_dir / "-".join(["sweep", *definition.grid, definition.digest()])


def print_table(sweep: Sweep, style: tables.Format) -> None:
    """The table of a sweep on standard output."""
    rows = sweep.table()
    print_records(rows, _heading(sweep), _cells(sweep), style)
    if style == "table":
        print_lines(*_notes(rows))


def table_text(sweep: Sweep) -> str:
    """The table as it is printed, of any width."""
    rows = sweep.table()
    lines = tables.aligned(_heading(sweep), [_cells(sweep)(row) for row in rows], None)
    return "\n".join([*lines, *_notes(rows), ""])


def _heading(sweep: Sweep) -> list[str]:
    return [*sweep.record["grid"], "seeds", "valid NLL (nats)", "test NLL (nats)", "active"]


def _cells(sweep: Sweep) -> Callable[[dict[str, Any]], list[str]]:
    def cells(row: dict[str, Any]) -> list[str]:
        figures = [_figure(row, name) for name in ("valid_nll", "test_nll")]
        figures[0] += " *" if row["is_best"] else ""
        active = "" if row["active_units"] is None else f"{row['active_units']:.1f}"
        axes = [label(row[name]) for name in sweep.record["grid"]]
        return [*axes, f"{row['finished']}/{row['seeds']}", *figures, active]

    return cells


def _figure(row: dict[str, Any], name: str) -> str:
    if row[name] is None and (row["finished"] == 0 or (name == "valid_nll" and not row["has_valid"])):
        return ""
    return tables.figure_label(row[name], row[f"{name}_stderr"])


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    """What must be read with the table."""
    samples = sorted({str(row["num_samples"]) for row in rows if row["num_samples"]})
    if not samples:
        return []
    lines = [f"L_{', L_'.join(samples)}; means over seeds ± their standard error."]
    if any(row["is_best"] for row in rows):
        each = " for each choice of data" if any(name in OF_THE_DATA for name in rows[0]) else ""
        lines.append(f"*: the best by validation likelihood{each}; the test examples have no say in it.")
    elif not any(row["has_valid"] for row in rows):
        lines.append("These data have no validation examples: none is called the best.")
    if len(samples) > 1:
        lines.append("Measured with unlike numbers of samples: give --test-samples the largest to compare them.")
    return lines
