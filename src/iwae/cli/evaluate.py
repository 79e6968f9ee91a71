"""`iwae evaluate`: a run's likelihood on a split. JAX is imported only when it runs."""

from dataclasses import dataclass
from typing import Literal

from iwae.cli import tables
from iwae.cli.console import make_reporter, print_lines
from iwae.cli.options import OfRunAndData
from iwae.runs.directory import Run


@dataclass(frozen=True)
class Evaluate(OfRunAndData):
    """Measure a run's likelihood on a split."""

    split: Literal["test", "train", "valid"] = "test"
    """Which examples to measure."""
    samples: int = 5000
    """Importance samples per example, up to 100,000."""
    examples: int | None = None
    """Measure only the first ones (default: all)."""
    seed: int = 0
    """Seed of the importance samples."""

    def run(self, arguments: list[str]) -> int:
        """Measures, prints and writes the measurement."""
        run = Run.open(self.path)
        with make_reporter() as reporter:
            from iwae.runs.evaluate import evaluate_checkpoint, run_dataset

            checkpoint = run.checkpoint(self.checkpoint)
            dataset = run_dataset(run, self.datasets_dir, reporter, self.dataset)
            run.create()
            result = evaluate_checkpoint(
                run,
                checkpoint,
                dataset,
                self.split,
                samples=self.samples,
                seed=self.seed,
                examples=self.examples,
                reporter=reporter,
            )
        record = result.to_json()
        size = result.likelihoods.mean_effective_sample_size
        print_lines(
            f"{self.split} NLL, L_{self.samples}: {tables.measured_label(record, self.split, run.data)}",
            f"Examples: {record['num_examples']:,}",
            f"Mean effective sample size: {size:.1f} of {self.samples}",
            f"Checkpoint: {checkpoint.path}",
            f"Written: {result.path}",
            f"Per example: {result.npz_path}",
        )
        return 0
