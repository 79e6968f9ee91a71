"""`iwae sample`: samples from a run's model. JAX is imported only when it runs."""

from dataclasses import dataclass
from pathlib import Path

from iwae.cli.console import print_lines
from iwae.cli.options import OfRun
from iwae.runs.directory import Run


@dataclass(frozen=True)
class Sample(OfRun):
    """Draw 100 samples: a 10 x 10 grid as PNG, and the values as .npy."""

    seed: int = 0
    """Seed of the draw."""
    out: Path | None = None
    """Directory to write to (default: the run's)."""

    def run(self, arguments: list[str]) -> int:
        """Draws and writes the samples."""
        run = Run(self.path)
        record = run.record
        from iwae.runs.evaluate import write_samples

        checkpoint = run.checkpoint(self.checkpoint)
        shape = record["data"]["image_shape"]
        directory = self.out or run.path
        directory.mkdir(parents=True, exist_ok=True)
        written = write_samples(directory, checkpoint.model(), (shape[0], shape[1]) if shape else None, self.seed)
        print_lines(*map(str, written))
        return 0
