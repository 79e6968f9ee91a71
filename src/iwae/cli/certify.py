"""`iwae certify`: how far a run's figures can be from log p(x). JAX is imported only when it runs."""

from dataclasses import dataclass
from typing import Literal

from iwae.cli import tables
from iwae.cli.app import with_dashes
from iwae.cli.console import make_reporter, print_lines, told_when_stopped
from iwae.cli.options import Integers, OfRunAndData
from iwae.runs.directory import Run

FEW_EXAMPLES = 20


@dataclass(frozen=True)
class Certify(OfRunAndData):
    """Enclose log p(x) of data simulated from a run's model, by L_k and by AIS (bidirectional Monte Carlo); then the
    same on the test set.
    """

    samples: Integers = (50, 500, 5000)
    """Importance samples: the budgets of L_k."""
    steps: Integers = (10, 30, 100)
    """Temperatures: the budgets of AIS."""
    examples: int = 100
    """Examples to simulate, and first test examples to measure."""
    chains: int = 16
    """Chains per example."""
    leapfrogs: int = 10
    """Leapfrog steps of the move at each temperature."""
    start: Literal["encoder", "prior"] = "encoder"
    """Where chains start."""
    seed: int = 0
    """Seed of the draws."""

    def run(self, arguments: list[str]) -> int:
        """Measures, prints and writes the certificate."""
        run = Run.open(self.path)
        with make_reporter() as reporter:
            from iwae.evaluation.chains import AnnealedSettings
            from iwae.runs.certify import certify_checkpoint
            from iwae.runs.data import run_dataset

            settings = AnnealedSettings(self.chains, 1, self.leapfrogs, self.start, self.seed)
            checkpoint = run.checkpoint(self.checkpoint)
            dataset = run_dataset(run, self.datasets_dir, reporter, self.dataset)
            run.create()
            budgets = {"samples": self.samples, "steps": self.steps, "examples": self.examples}
            with told_when_stopped(reporter):
                found = certify_checkpoint(run, checkpoint, dataset, settings=settings, reporter=reporter, **budgets)
            for text in found.warnings:
                reporter.message(f"Warning: {with_dashes(text, ('steps', 'start'))}")
            if self.examples < FEW_EXAMPLES:
                reporter.message(f"Warning: the standard errors are of {self.examples} examples: give more --examples")
        record = found.record
        heading = ("budget", "lower bound", "upper bound", "gap", "test NLL")
        rows = [
            [
                f"L_{one['samples']}" if one["method"] == "importance" else f"AIS, {one['steps']} steps",
                tables.number_label(one["lower"]),
                tables.number_label(one["upper"]),
                tables.figure_label(one["gap"], one["gap_stderr"]),
                tables.figure_label(one["test_nll"], one["test_stderr"]),
            ]
            for one in record["budgets"]
        ]
        print_lines(
            f"log p(x) in nats, mean of {record['num_examples']:,} examples simulated from the model; the last column"
            f" is of the first {record['test_examples']:,} test examples.",
            *tables.aligned(heading, rows, None),
            "This certifies the gap on simulated data alone: on real data only the lower bound holds.",
            record["conclusion"],
            f"Checkpoint: {checkpoint.path}",
            f"Written: {found.path}",
        )
        return 0
