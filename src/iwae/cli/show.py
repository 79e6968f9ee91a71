"""`iwae show`: runs as a table, JSON, CSV or Markdown."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from iwae.cli import tables
from iwae.cli.console import print_lines, print_records
from iwae.cli.options import default_results_dir
from iwae.cli.processes import fail_each, watch
from iwae.cli.sweep import print_table
from iwae.data import shown_name
from iwae.errors import IWAEError
from iwae.io.text import counted
from iwae.runs.directory import Run
from iwae.runs.listing import find_runs, summary
from iwae.runs.progress import RunProgress, progress_of
from iwae.runs.sweep import Sweep

HEADING = ("run", "data", "objective", "stages", "test NLL (nats)", "delta JVI-2 k-hat", "active")


@dataclass(frozen=True)
class Show:
    """Print runs as a table, or as JSON, CSV or Markdown."""

    paths: Positional[tuple[Path, ...]] = ()
    """Directories of runs and sweeps (default: the runs in --results-dir); plain files among them are passed over."""
    format: tables.Format = "table"
    """How to print them: json and csv have every figure, one record a run."""
    watch: bool = False
    """Show how far they are, until all are done or have failed; from any machine that sees their directories."""
    results_dir: Path = field(default_factory=default_results_dir)
    """Where runs are kept (also: IWAE_RESULTS_DIR)."""

    def run(self, arguments: list[str]) -> int:
        """Prints the runs. The status is 1 when one of them could not be read."""
        sweeps = [Sweep(path) for path in self.paths if Sweep.is_here(path)]
        if self.watch:
            watch(lambda: self._progress(sweeps))
        records, results, failures = [], [], []
        for run in self._runs():
            try:
                records.append(summary(run))
                found = run.results()
                # A run that another took the place of is no further seed.
                results += [found] if found is not None and not run.is_put_aside else []
            except IWAEError as error:
                failures.append(str(error))
        if records:
            print_records(records, HEADING, _cells, self.format)
            if self.format == "table" and not sweeps:
                print_lines(*tables.seeds_lines(results))
        for sweep in sweeps if self.format == "table" else ():
            done = Counter(one.state for one in sweep.progress())
            states = ", ".join(f"{count} {state}" for state, count in done.items())
            print_lines(*([""] if records else []), f"{sweep.path}: {len(sweep.runs)} runs, {states}")
            print_table(sweep, "table")
        return fail_each(failures)

    def _runs(self) -> list[Run]:
        runs = [
            run
            for path in self.paths
            if not path.is_file()
            for run in (find_runs(path) if Sweep.is_here(path) else [Run(path)])
        ]
        if not self.paths and self.results_dir.is_dir():
            runs = find_runs(self.results_dir)
        if not runs and not any(map(Sweep.is_here, self.paths)):
            where = "among what was given" if self.paths else f"in {self.results_dir}"
            raise IWAEError(f"no runs {where}: `iwae train` makes one, or give a run's directory")
        return runs

    def _progress(self, sweeps: list[Sweep]) -> list[RunProgress]:
        there = {run.path.parent for sweep in sweeps for run in sweep.runs}
        others = [run for run in self._runs() if run.path.parent not in there]
        return [one for sweep in sweeps for one in sweep.progress()] + [
            progress_of(run, run.config.full_schedule(), is_done=run.results() is not None) for run in others
        ]


def _cells(record: dict[str, Any]) -> list[str]:
    """A record as a row of the table."""
    measured = "not measured"
    if record["num_samples"] is not None:
        part = "" if record["num_examples"] == record["split_examples"] else f" (first {record['num_examples']:,})"
        measured = f"{tables.figure_label(record['nll'], record['nll_stderr'])}{part}  k={record['num_samples']}"
    if record["ais_nll"] is not None:
        part = "" if record["ais_num_examples"] == record["split_examples"] else f" ({record['ais_num_examples']:,})"
        measured += f", AIS {tables.figure_label(record['ais_nll'], record['ais_stderr'])}{part}"
    stages = f"{record['stages_done']}/{record['stages_total']}"
    if record["patience"] is not None and record["num_samples"] is not None:
        stages = f"best after {counted(record['epochs'], 'epoch')}"
    delta, jvi2, above = (record[name] for name in ("delta", "jvi2_nll", "pareto_k_above"))
    weights = [tables.number_label(delta), tables.number_label(jvi2), "-" if above is None else f"{above:.0%}"]
    return [
        record["name"],
        shown_name(record["dataset"], record["data_mark"]),
        record["objective_label"],
        stages,
        measured,
        "" if delta is None else ", ".join(weights),
        record["active_units_by_layer"] or "",
    ]
