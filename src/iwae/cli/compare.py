"""`iwae compare`: runs beside the first of them, test example by test example."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from iwae.cli import tables
from iwae.cli.console import print_lines, print_records

HEADING = ("run", "test NLL (nats)", "less the first's", "better on")


@dataclass(frozen=True)
class Compare:
    """Compare runs by the likelihoods of the same test examples.

    Paired differences from the first run, with their standard errors. `iwae estimators` compares estimators.
    """

    paths: Positional[tuple[Path, ...]] = ()
    """The runs' directories, two or more; the others are held against the first."""
    format: tables.Format = "table"
    """How to print it: json and csv have every figure, one record a run."""

    def run(self, arguments: list[str]) -> int:
        """Prints one row a run."""
        from iwae.runs.compare import compare_runs

        records = compare_runs(self.paths)
        print_records(records, HEADING, _cells, self.format)
        if self.format == "table":
            one = records[0]
            print_lines(f"On the first {one['num_examples']:,} test examples, L_{one['num_samples']:,} of each.")
        return 0


def _cells(record: dict[str, Any]) -> list[str]:
    """A record as a row of the table."""
    figure = tables.figure_label(record["nll"], record["stderr"])
    if record["difference"] is None:
        return [record["run"], figure, "", ""]
    sign = "+" if record["difference"] >= 0 else ""
    difference = tables.figure_label(record["difference"], record["difference_stderr"], digits=2)
    return [record["run"], figure, f"{sign}{difference}", f"{record['better']:.0%} of examples"]
