"""`iwae analyze`: what a run has learned. JAX and Matplotlib are imported only when it runs."""

from dataclasses import dataclass

from iwae.cli import tables
from iwae.cli.console import make_reporter, print_lines
from iwae.cli.options import OfRunAndData
from iwae.runs.directory import Run
from iwae.runs.records import AnnealedRecord


@dataclass(frozen=True)
class Analyze(OfRunAndData):
    """Measure what a trained run has learned, and draw it, into RUN/analysis/."""

    samples: int | None = None
    """Importance samples per example (default: 5000)."""
    examples: int | None = None
    """Measure the first so many test and training examples (default: as many as the run measured itself on)."""

    def run(self, arguments: list[str]) -> int:
        """Analyzes, and prints the main numbers."""
        run = Run.open(self.path)
        with make_reporter() as reporter:
            from iwae.runs.analyze import DIRECTORY, FILE, AnalyzeOptions, analyze_run

            found = analyze_run(
                self.path,
                options=AnalyzeOptions(self.samples, self.examples),
                checkpoint=self.checkpoint,
                dataset=self.dataset,
                datasets_dir=self.datasets_dir,
                reporter=reporter,
            )
        from iwae.report import labels

        test, train, gap, layers = found["test"], found["train"], found["gap"], found["layers"]
        active, units = (tables.units_label([layer[name] for layer in layers]) for name in ("active", "units"))
        annealed, _ = run.annealed(found["weights_sha256"])
        lines = [
            f"Test NLL: {labels.nats(test['nll'], test['stderr'])} nats, {labels.measured_on(test, 'test')}",
            *([] if annealed is None else [_annealed_line(annealed)]),
            f"Training NLL: {labels.nats(train['nll'], train['stderr'])} nats, {labels.measured_on(train, 'training')}",
            f"Gap: {labels.nats(gap['value'], gap['stderr'], sign=True)} nats",
            f"Active units: {active} of {units}",
            f"Pictures: {', '.join(found['pictures'].values())}",
            *(f"No {name.replace('_', ' ')}: {reason}" for name, reason in found["skipped"].items()),
            f"Written: {self.path / DIRECTORY / FILE}",
        ]
        print_lines(*lines)
        return 0


def _annealed_line(found: AnnealedRecord) -> str:
    """What annealed importance sampling found of the same weights before."""
    from iwae.report import labels

    return f"Test NLL by AIS: {labels.nats(found['nll'], found['stderr'])} nats, {labels.annealed_on(found)}"
