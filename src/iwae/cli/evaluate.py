"""`iwae evaluate`: a run's likelihood on a split. JAX is imported only when it runs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from iwae.cli import tables
from iwae.cli.app import with_dashes
from iwae.cli.console import make_reporter, print_lines
from iwae.cli.options import OfRunAndData
from iwae.data import Dataset
from iwae.runs.directory import Run
from iwae.runs.reporter import Reporter

if TYPE_CHECKING:
    from iwae.runs.checkpoint import Checkpoint

AIS_EXAMPLES = 1000


@dataclass(frozen=True)
class Evaluate(OfRunAndData):
    """Measure a run's likelihood on a split."""

    split: Literal["test", "train", "valid"] = "test"
    """Which examples to measure."""
    method: Literal["importance", "ais"] = "importance"
    """Importance sampling, L_k, or annealed importance sampling, a closer lower bound of log p(x) for more time."""
    samples: int = 5000
    """Importance samples per example, up to 100,000."""
    examples: int | None = None
    """Measure only the first ones (default: all; with --method ais 1,000)."""
    chains: int = 16
    """With --method ais: chains per example."""
    steps: int = 100
    """With --method ais: temperatures that a chain goes through."""
    leapfrogs: int = 10
    """With --method ais: leapfrog steps of the move at each temperature."""
    start: Literal["encoder", "prior"] = "encoder"
    """With --method ais: where chains start."""
    seed: int = 0
    """Seed of the draws."""

    def run(self, arguments: list[str]) -> int:
        """Measures, prints and writes the measurement."""
        run = Run.open(self.path)
        with make_reporter() as reporter:
            from iwae.runs.evaluate import run_dataset

            checkpoint = run.checkpoint(self.checkpoint)
            dataset = run_dataset(run, self.datasets_dir, reporter, self.dataset)
            run.create()
            measure = self._importance if self.method == "importance" else self._annealed
            lines = measure(run, checkpoint, dataset, reporter)
        print_lines(*lines)
        return 0

    def _importance(self, run: Run, checkpoint: "Checkpoint", dataset: Dataset, reporter: Reporter) -> list[str]:
        from iwae.runs.evaluate import evaluate_checkpoint

        options = {"samples": self.samples, "seed": self.seed, "examples": self.examples}
        result = evaluate_checkpoint(run, checkpoint, dataset, self.split, reporter=reporter, **options)
        record, size = result.to_json(), result.likelihoods.mean_effective_sample_size
        return [
            f"{self.split} NLL, L_{self.samples}: {tables.measured_label(record, self.split, run.data)}",
            f"Examples: {record['num_examples']:,}",
            f"Mean effective sample size: {size:.1f} of {self.samples}",
            f"Checkpoint: {checkpoint.path}",
            f"Written: {result.path}",
            f"Per example: {result.npz_path}",
        ]

    def _annealed(self, run: Run, checkpoint: "Checkpoint", dataset: Dataset, reporter: Reporter) -> list[str]:
        from iwae.evaluation.chains import AnnealedSettings
        from iwae.runs.anneal import anneal_checkpoint

        settings = AnnealedSettings(self.chains, self.steps, self.leapfrogs, self.start, self.seed)
        examples = AIS_EXAMPLES if self.examples is None else self.examples
        how = {"settings": settings, "examples": examples}
        result = anneal_checkpoint(run, checkpoint, dataset, self.split, reporter=reporter, **how)
        record = result.record
        if result.warning is not None:
            reporter.message(f"Warning: {with_dashes(result.warning, ('steps', 'start'))}")
        return [
            f"{self.split} NLL, AIS: {tables.measured_label(record, self.split, run.data)}",
            f"Standard error over chains alone: {tables.number_label(record['chain_stderr'])} nats",
            f"Chains: {self.chains} of {self.steps} steps from the {self.start}, acceptance"
            f" {tables.number_label(record['acceptance'])}, mean effective sample size"
            f" {tables.number_label(record['mean_effective_sample_size'])}",
            f"Checkpoint: {checkpoint.path}",
            f"Written: {result.path}",
            f"Per example: {result.path.with_suffix('.npz')}",
        ]
