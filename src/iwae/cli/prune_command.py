"""`iwae prune`: a smaller model without its inactive units."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from iwae.cli.commands import reporting
from iwae.runs.config import MeasureOptions
from iwae.runs.directory import RunDirectory


@dataclass(frozen=True)
class Prune:
    """Write a smaller model without a run's inactive units.

    Both are measured with the same noise.
    """

    path: Positional[Path]
    """The run's directory."""
    out: Path | None = None
    """Directory of the pruned run (default: beside the run, with -pruned added to its name)."""
    checkpoint: int | None = None
    """Prune the state after this many stages (default: the newest)."""
    samples: int = 5000
    """Importance samples per test example."""
    examples: int | None = None
    """Measure only this many test examples, the first ones (default: all)."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first (also: IWAE_DATASETS_DIR)."""

    def run(self, arguments: list[str]) -> int:
        """Prunes, measures, and prints what came out."""
        MeasureOptions(self.samples, self.examples)
        source = RunDirectory(self.path)
        source.read_record()
        resolved = source.path.resolve()
        out = RunDirectory(self.out or resolved.with_name(f"{resolved.name}-pruned"))
        with reporting() as reporter:
            from iwae.runs.measure import run_dataset
            from iwae.runs.prune import prune_run

            result = prune_run(
                source,
                out,
                run_dataset(source, self.datasets_dir, reporter),
                checkpoint=self.checkpoint,
                samples=self.samples,
                examples=self.examples,
                reporter=reporter,
            )
        sizes = ", ".join(f"{kept} of {total}" for kept, total in zip(result.kept, result.total, strict=True))
        for line in (
            f"Units kept: {sizes}",
            f"Test NLL, L_{self.samples}: {result.before:.3f} before, {result.after:.3f} after, with the same noise:"
            f" {result.difference:+.4f} ± {result.difference_stderr:.4f} nats",
            f"Pruned run: {out.path}",
        ):
            Console().print(line, soft_wrap=True, highlight=False, markup=False)
        return 0
