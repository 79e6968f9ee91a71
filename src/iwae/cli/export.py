"""`iwae export`: a run's encoder and decoder for use without this package. JAX is imported only when it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from iwae.cli.console import print_lines
from iwae.cli.options import OfRun
from iwae.runs.directory import Run


@dataclass(frozen=True)
class Export(OfRun):
    """Write a run's encoder and decoder, weights included, for use without iwae (see docs/how-to/export.md)."""

    format: Literal["stablehlo", "onnx"] = "stablehlo"
    """StableHLO, which JAX reads without iwae, or ONNX, which needs the extra onnx."""
    out: Path | None = None
    """Directory to write to (default: export/FORMAT in the run's)."""

    def run(self, arguments: list[str]) -> int:
        """Exports and prints what was written."""
        run = Run.open(self.path)
        from iwae.runs.export import export_run

        print_lines(*map(str, export_run(run, run.checkpoint(self.checkpoint), self.format, self.out)))
        return 0
