"""`iwae impute`: a file's missing values, from a run's model. JAX is imported only when it runs."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwae.cli.console import print_lines
from iwae.cli.options import OfRun
from iwae.runs.directory import Run

if TYPE_CHECKING:
    from iwae.evaluation.imputation import ImputationCheck


@dataclass(frozen=True, kw_only=True)
class Impute(OfRun):
    """Fill in what is missing (NaN) in a file of rows like those that the run was trained on.

    The last line says how good that is: some observed values are hidden, imputed and compared.
    """

    input: Path
    """An .npy file, an .npz archive with any of train, valid and test, or a table (.csv, .tsv, .parquet)."""
    output: Path
    """The new file, of the same kind."""
    draws: int | None = None
    """Write so many tables, completed by draws, as a first axis, instead of one that is completed by means."""
    samples: int = 10_000
    """Importance samples per row, up to 100,000."""
    seed: int = 0
    """Seed of the samples and draws: with it, a row's values depend on the row alone."""

    def run(self, arguments: list[str]) -> int:
        """Completes the file and says how much was missing."""
        run = Run.open(self.path)
        from iwae.runs.impute import check_file, impute_file

        model = run.checkpoint(self.checkpoint).model()
        how: Any = {"columns": run.columns, "draws": self.draws, "samples": self.samples, "seed": self.seed}
        missing = impute_file(model, self.input, self.output, **how)
        print_lines(*(f"Missing in {name}: {count:,} values" for name, count in missing.items()))
        print_lines(f"Written: {self.output}")
        if any(missing.values()):
            found, of_what = check_file(run, model, self.input, seed=self.seed)
            print_lines(*([] if found is None else [_quality(found, of_what)]))
        return 0


def _quality(found: "ImputationCheck", of_what: str) -> str:
    """One line on imputations of values that are known."""
    parts = []
    if not math.isnan(found.error):
        parts.append(f"normalized RMSE {found.error:.2f}, the columns' means {found.error_of_means:.2f}")
    if not math.isnan(found.right):
        parts.append(f"categories right {found.right:.0%}, the most frequent ones {found.right_of_modes:.0%}")
    line = f"Check, on {found.hidden:,} observed values {of_what}: {'; '.join(parts) or 'no column varies'}"
    return line if found.is_better else f"{line}. This is no better than filling in a constant per column"
