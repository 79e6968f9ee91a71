"""`iwae report`: one page about runs. JAX and Matplotlib are imported only when it runs."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from iwae.cli.console import make_reporter, print_lines
from iwae.cli.options import Output
from iwae.errors import IWAEError
from iwae.runs.directory import Run
from iwae.runs.listing import find_runs
from iwae.runs.sweep import Sweep


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page about one or several runs.

    What is not analyzed yet is analyzed first.
    """

    paths: Positional[tuple[Path, ...]] = ()
    """Directories of runs, or of sweeps."""
    output: Output = None
    """The page (default: report.html in the directory given, for several in the working directory)."""
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
        paths = [run for path in self.paths for run in (_runs_of(path) if Sweep.is_here(path) else [path])]
        for path in paths:
            Run.open(path)
        with make_reporter() as reporter:
            from iwae.report.write import write_report
            from iwae.runs.analyze import AnalyzeOptions

            written = write_report(
                paths,
                out=self._out(),
                options=AnalyzeOptions(self.samples, self.examples),
                dataset=self.dataset,
                datasets_dir=self.datasets_dir,
                reporter=reporter,
            )
        print_lines(f"Written: {written}")
        return 0

    def _out(self) -> Path | None:
        is_sweep = len(self.paths) == 1 and Sweep.is_here(self.paths[0])
        return self.paths[0] / "report.html" if self.output is None and is_sweep else self.output


def _runs_of(path: Path) -> list[Path]:
    """The runs of a sweep that are measured."""
    runs = [run.path for run in find_runs(path) if run.results() is not None]
    if not runs:
        raise IWAEError(f"{path}: no run of this sweep is measured yet; `iwae sweep` trains and measures them")
    return runs
