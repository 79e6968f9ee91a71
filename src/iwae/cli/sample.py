"""`iwae sample`: samples from a run's model. JAX is imported only when it runs."""

from dataclasses import dataclass
from pathlib import Path

from iwae.cli.console import print_lines
from iwae.cli.options import OfRun
from iwae.errors import IWAEError
from iwae.runs.directory import Run


@dataclass(frozen=True)
class Sample(OfRun):
    """Draw rows from the model's p(x), not means; of images also a picture, which shows means."""

    output: Path | None = None
    """The new file: .csv, .tsv, .parquet or .npy for draws from p(x), in the data's units and with a table's names,
    levels and types; .png for a picture of images, of means given the latents that were drawn (default: 100 rows in
    RUN: samples.csv of a table, samples.npy of another array, samples.png and .npy, of means, of images)."""
    rows: int | None = None
    """With --output: how many rows (default: 100)."""
    seed: int = 0
    """Seed of the draw."""

    def run(self, arguments: list[str]) -> int:
        """Draws and writes the samples."""
        run = Run.open(self.path)
        if self.output is None and self.rows is not None:
            raise IWAEError(f"`rows` {self.rows} needs `output`, a file for them: a run's own samples are 100")
        from iwae.runs.sample import NUM_SAMPLES, sample_file, write_samples

        model = run.checkpoint(self.checkpoint).model()
        if self.output is None:
            written = write_samples(run.path, model, run.data, run.columns, self.seed)
            print_lines(*map(str, dict.fromkeys(written)))
        else:
            rows = NUM_SAMPLES if self.rows is None else self.rows
            sample_file(model, self.output, run.data, run.columns, rows=rows, seed=self.seed)
            print_lines(f"Written: {self.output}")
        return 0
