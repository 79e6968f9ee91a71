"""`iwae outliers`: the rows of a table that a density model finds least likely. JAX is imported only when it runs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from iwae.cli.console import print_lines
from iwae.data import Reading
from iwae.data.columns import AUTO
from iwae.data.own import load_own
from iwae.errors import check_count
from iwae.io.files import check_new, write_atomically


@dataclass(frozen=True)
class Outliers:
    """Fit a density to the rows of a table or an array, and rank them: the least likely first. No run is made."""

    file: Positional[Path]
    """A table (.csv, .tsv, .parquet) or an array (.npy, .npz of a sparse matrix, .h5ad)."""
    output: Path | None = None
    """A new .csv file for each row's number, from 0, and log density in nats, in the order of the rows."""
    likelihood: str = AUTO
    """Kind of the values, as for `iwae train`: auto, one for all columns, or column=KIND,..."""
    columns: tuple[str, ...] = ()
    """Columns of a table to use (default: all)."""
    target: tuple[str, ...] = ()
    """Columns of a table to leave out."""
    rows: int = 10
    """How many of the least likely rows to print."""
    seed: int = 0
    """Seed of the fit and of the densities."""

    def run(self, arguments: list[str]) -> int:
        """Fits, ranks, prints and writes."""
        check_count("rows", self.rows)
        if self.output is not None:
            check_new(self.output)
        data = load_own(self.file, Reading(self.likelihood, self.columns, self.target, shuffled=False))
        print_lines(*data.description())
        from iwae.models.likelihoods import likelihood_of
        from iwae.sklearn import IWAEDensity

        kind = "gaussian" if data.likelihood == "gaussian" else likelihood_of(data)
        table = np.concatenate([data.train, data.valid, data.test]) * data.scale
        found = IWAEDensity(likelihood=kind, random_state=self.seed).fit(table).score_samples(table)
        order = np.argsort(found, kind="stable")[: self.rows]
        width = max(3, len(str(len(table))))
        print_lines(f"{'row':<{width}}  log density (nats)", *(f"{row:<{width}}  {found[row]:.2f}" for row in order))
        if self.output is not None:
            lines = [f"{row},{value!r}\n" for row, value in enumerate(found.tolist())]
            write_atomically(self.output, "".join(["row,log_density\n", *lines]).encode())
            print_lines(f"Written: {self.output}")
        return 0
