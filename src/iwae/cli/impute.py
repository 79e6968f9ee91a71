"""`iwae impute`: a file's missing values, from a run's model. JAX is imported only when it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwae.cli.console import print_lines
from iwae.cli.options import OfRun
from iwae.runs.directory import Run


@dataclass(frozen=True, kw_only=True)
class Impute(OfRun):
    """Fill in what is missing (NaN) in a file of rows like those that the run was trained on."""

    input: Path
    """An .npy file, an .npz archive with any of train, valid and test, or a table (.csv, .tsv, .parquet)."""
    output: Path
    """The file to write, of the same kind."""
    draws: int | None = None
    """Write so many tables, completed by draws, as a first axis, instead of one that is completed by means."""
    samples: int = 10_000
    """Importance samples per row, up to 100,000."""
    seed: int = 0
    """Seed of the samples and draws."""

    def run(self, arguments: list[str]) -> int:
        """Completes the file and says how much was missing."""
        run = Run.open(self.path)
        from iwae.runs.impute import impute_file

        model = run.checkpoint(self.checkpoint).model()
        how: Any = {"columns": run.columns, "draws": self.draws, "samples": self.samples, "seed": self.seed}
        missing = impute_file(model, self.input, self.output, **how)
        print_lines(*(f"Missing in {name}: {count:,} values" for name, count in missing.items()))
        print_lines(f"Written: {self.output}")
        return 0
