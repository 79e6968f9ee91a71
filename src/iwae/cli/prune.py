"""`iwae prune`: a smaller model without its inactive units."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iwae.cli.console import make_reporter, print_lines
from iwae.cli.options import OfRunAndData, Output
from iwae.runs.directory import Run

if TYPE_CHECKING:
    from iwae.runs.prune import PruneResult


@dataclass(frozen=True)
class Prune(OfRunAndData):
    """Write a smaller model without a run's inactive units.

    Both are measured with the same noise.
    """

    output: Output = None
    """Directory of the pruned run (default: beside the run, with -pruned added to its name)."""
    samples: int = 5000
    """Importance samples per test example, up to 100,000."""
    examples: int | None = None
    """Measure only this many test examples, the first ones (default: all)."""

    def run(self, arguments: list[str]) -> int:
        """Prunes, measures, and prints what came out."""
        source = Run.open(self.path)
        resolved = source.path.resolve()
        out = Run(self.output or resolved.with_name(f"{resolved.name}-pruned"))
        with make_reporter() as reporter:
            from iwae.runs.data import run_dataset
            from iwae.runs.prune import prune_run

            result = prune_run(
                source,
                out,
                run_dataset(source, self.datasets_dir, reporter, self.dataset),
                checkpoint=self.checkpoint,
                samples=self.samples,
                examples=self.examples,
                reporter=reporter,
            )
        print_lines(*_lines(result, self.samples), f"Pruned run: {out.path}")
        return 0


def _lines(result: "PruneResult", samples: int) -> list[str]:
    sizes = ", ".join(f"{kept} of {total}" for kept, total in zip(result.kept, result.total, strict=True))
    error = f" ± {result.difference_stderr:.4f}" if math.isfinite(result.difference_stderr) else ""
    return [
        f"Units kept: {sizes}",
        *(
            f"No unit of layer {layer} is active: the one that varies most is kept, so that the layer exists."
            for layer in result.kept_inactive
        ),
        f"Test NLL, L_{samples}: {result.before:.3f} before, {result.after:.3f} after, with the same noise:"
        f" {result.difference:+.4f}{error} nats",
    ]
