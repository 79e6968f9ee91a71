"""`iwae report`: one page about runs. JAX and Matplotlib are imported only when it runs."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from iwae.cli.console import make_reporter, print_lines
from iwae.cli.options import Output
from iwae.errors import IWAEError
from iwae.runs.directory import Run


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page about one or several runs.

    What is not analyzed yet is analyzed first.
    """

    paths: Positional[tuple[Path, ...]] = ()
    """The runs' directories."""
    output: Output = None
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
            Run.open(path)
        with make_reporter() as reporter:
            from iwae.report.write import write_report
            from iwae.runs.analyze import AnalyzeOptions

            written = write_report(
                self.paths,
                out=self.output,
                options=AnalyzeOptions(self.samples, self.examples),
                dataset=self.dataset,
                datasets_dir=self.datasets_dir,
                reporter=reporter,
            )
        print_lines(f"Written: {written}")
        return 0
