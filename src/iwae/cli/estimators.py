"""`iwae estimators`: several estimators on the same data, side by side."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from tyro.conf import Positional

from iwae.cli import tables
from iwae.cli.console import make_reporter, print_line, print_lines, print_records
from iwae.cli.options import Integers, SettingsBesideObjectives, default_results_dir
from iwae.cli.processes import carry_out, fail_each
from iwae.errors import check_count
from iwae.runs.options import DiagnoseOptions, MeasureOptions, TrainOptions
from iwae.runs.sweep import Sweep

HEADING = ("estimator", "k", "seeds", "test NLL", "enc. bias", "noise", "dec. bias", "noise", "ms")
NOTES = (
    "bias, noise: of a gradient, encoder's and decoder's, on one of these models; ~: not to be told from zero.",
    "ms: one gradient of a minibatch, in milliseconds.",
)


@dataclass(frozen=True)
class Estimators:
    """Train with each of several estimators, for the same steps, and compare likelihood, bias, noise and time.

    The same command goes on where it stopped. Options of `iwae train` hold for all.
    """

    estimators: Positional[tuple[str, ...]] = ()
    """Objectives with their estimators and parameters, such as iwae iwae:dreg vimco ciwae:stl:beta=0.5."""
    k: Integers = (1, 5, 50)
    """Numbers of samples of each."""
    seeds: Integers = (0, 1, 2)
    """Seeds of each, such as 0:5 or 0,1,2."""
    configuration: SettingsBesideObjectives = field(default_factory=SettingsBesideObjectives)
    stages: int | None = None
    """Stop after this many of the schedule's stages (default: all)."""
    measuring: MeasureOptions = field(default_factory=MeasureOptions)
    draws: int = DiagnoseOptions.draws
    """Independent gradients of each estimator."""
    reference_k: int = DiagnoseOptions.reference_k
    """Samples of the large-k gradients in the picture of bias."""
    jobs: int = 1
    """Train this many at once, each on its share of the cores."""
    format: tables.Format = "table"
    """How to print the table: json and csv have every figure."""
    sweep_dir: Path | None = None
    """The directory of all of it (default: a name made from the options inside --results-dir)."""
    results_dir: Path = field(default_factory=default_results_dir)
    """Where runs are kept (also: IWAE_RESULTS_DIR)."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first (also: IWAE_DATASETS_DIR)."""

    def run(self, arguments: list[str]) -> int:
        """Trains what is missing, measures, and writes the table and the page. The status is 1 when a run failed."""
        from iwae.report.estimators import write_page
        from iwae.runs.estimators import Contest, compared, measure_gradients

        check_count("jobs", self.jobs)
        TrainOptions(stages=self.stages)
        options = DiagnoseOptions(draws=self.draws, reference_k=self.reference_k)
        contest = Contest.of(self.estimators, self.k, self.seeds, self.configuration.given)
        directory = self.sweep_dir or self.results_dir / f"estimators-{contest.digest()}"
        sweep = Sweep.create(directory, contest, self.stages, self.measuring)
        datasets_dir = self.datasets_dir.resolve() if self.datasets_dir else None
        orders = sweep.unfinished(
            save_every=TrainOptions.save_every, datasets_dir=datasets_dir, command="the same iwae estimators"
        )
        total = len(sweep.runs)
        said = Console(stderr=True)
        print_line(said, f"Estimators: {sweep.path}, {total} runs, {total - len(orders)} of them finished.")
        failures = carry_out(orders, sweep.path, on="local", jobs=self.jobs, slurm=())
        with make_reporter() as reporter:
            gradients = measure_gradients(sweep, options, datasets_dir, reporter)
        rows = compared(sweep, gradients)
        print_records(rows, HEADING, _cells, self.format)
        lines = [*NOTES, *([f"Gradients are of {gradients['run']}."] if gradients else [])]
        if self.format == "table":
            print_lines(*lines)
        text = "\n".join([*tables.aligned(HEADING, [_cells(row) for row in rows], None), *lines, ""])
        written = sweep.write_table(text, rows)
        page = write_page(sweep, HEADING, [_cells(row) for row in rows], lines)
        print_line(said, f"Written: {page}; {written}, and as .csv and .json")
        return fail_each(failures)


def _cells(row: dict[str, Any]) -> list[str]:
    def bias(group: str) -> str:
        value = row[f"{group}_bias"]
        sign = "" if row[f"{group}_bias_is_visible"] else "~"
        return "" if value is None else f"{sign}{value:.2g}"

    def noise(group: str) -> str:
        return "" if row[f"{group}_noise"] is None else f"{row[f'{group}_noise']:.3g}"

    nll = tables.figure_label(row["test_nll"], row["test_nll_stderr"]) if row["finished"] else ""
    seconds = "" if row["seconds"] is None else f"{1000 * row['seconds']:.3g}"
    groups = [text for group in ("encoder", "decoder") for text in (bias(group), noise(group))]
    return [row["estimator"], str(row["k"]), f"{row['finished']}/{row['seeds']}", nll, *groups, seconds]
