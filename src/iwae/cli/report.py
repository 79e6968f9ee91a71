"""`iwae analyze` and `iwae report`. JAX and Matplotlib are imported only when one runs."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from iwae.cli import tables
from iwae.cli.console import make_reporter, print_lines
from iwae.errors import IWAEError
from iwae.runs.directory import RunDirectory


@dataclass(frozen=True)
class Analyze:
    """Measure what a trained run has learned, and draw it, into RUN/analysis/."""

    path: Positional[Path]
    """The run's directory."""
    samples: int | None = None
    """Importance samples per example (default: 5000)."""
    examples: int | None = None
    """Measure the first so many test and training examples (default: as many as the run measured itself on)."""
    checkpoint: int | None = None
    """Analyze the state after this many stages (default: the newest)."""
    dataset: Path | None = None
    """Where your own data is now, if it has moved since training."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first (also: IWAE_DATASETS_DIR)."""

    def run(self, arguments: list[str]) -> int:
        """Analyzes, and prints the main numbers."""
        RunDirectory(self.path).read_record()
        with make_reporter(Console(stderr=True)) as reporter:
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
        lines = [
            f"Test NLL: {labels.nats(test['nll'], test['stderr'])} nats, {labels.measured_on(test, 'test')}",
            f"Training NLL: {labels.nats(train['nll'], train['stderr'])} nats, {labels.measured_on(train, 'training')}",
            f"Gap: {labels.nats(gap['value'], gap['stderr'], sign=True)} nats",
            f"Active units: {active} of {units}",
            f"Pictures: {', '.join(found['pictures'].values())}",
            *(f"No {name.replace('_', ' ')}: {reason}" for name, reason in found["skipped"].items()),
            f"Written: {self.path / DIRECTORY / FILE}",
        ]
        print_lines(*lines)
        return 0


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page about one or several runs.

    What is not analyzed yet is analyzed first.
    """

    paths: Positional[tuple[Path, ...]] = ()
    """The runs' directories."""
    out: Path | None = None
    """The page (default: report.html in the run's directory, for several runs in the working directory)."""
    samples: int | None = None
    """Importance samples per example, where a run must be analyzed (default: 5000, or what its analysis has)."""
    examples: int | None = None
    """Test and training examples to measure there (default: as `iwae analyze`, or what its analysis has)."""
    dataset: Path | None = None
    """Where your own data is now, if it has moved since training."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first (also: IWAE_DATASETS_DIR)."""

    def run(self, arguments: list[str]) -> int:
        """Writes the page and prints its path."""
        if not self.paths:
            raise IWAEError("which runs? give the directory of at least one (see iwae report --help)")
        for path in self.paths:
            RunDirectory(path).read_record()
        with make_reporter(Console(stderr=True)) as reporter:
            from iwae.report.write import write_report
            from iwae.runs.analyze import AnalyzeOptions

            written = write_report(
                self.paths,
                out=self.out,
                options=AnalyzeOptions(self.samples, self.examples),
                dataset=self.dataset,
                datasets_dir=self.datasets_dir,
                reporter=reporter,
            )
        print_lines(f"Written: {written}")
        return 0
