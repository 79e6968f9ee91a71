"""`iwae export`: a run's weights alone, or its encoder and decoder for use without this package. JAX is imported only
when it runs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from iwae.cli.console import print_lines
from iwae.cli.options import OfRun
from iwae.runs.directory import Run


@dataclass(frozen=True)
class Export(OfRun):
    """Write a run's encoder and decoder, weights included, for use without iwae, or the run with its weights alone
    (see docs/how-to/export.md).
    """

    format: Literal["stablehlo", "onnx", "weights"] = "stablehlo"
    """StableHLO, which JAX reads without iwae; ONNX, which needs the extra onnx; or a run's directory with weights
    alone, a third of the size, for all but further training."""
    out: Path | None = None
    """Directory to write to (default: export/FORMAT in the run's)."""

    def run(self, arguments: list[str]) -> int:
        """Exports and prints what was written."""
        run = Run.open(self.path)
        if self.format == "weights":
            from iwae.runs.export_weights import export_weights

            out = self.out or run.path / "export" / "weights"
            print_lines(str(export_weights(run, run.checkpoint(self.checkpoint), out)))
            return 0
        from iwae.runs.export import export_run

        print_lines(*map(str, export_run(run, run.checkpoint(self.checkpoint), self.format, self.out)))
        return 0
