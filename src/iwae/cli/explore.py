"""`iwae explore`: a page that computes with a trained model. JAX is imported only when it runs."""

import os
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from iwae.cli.console import make_reporter, print_lines
from iwae.cli.options import OfRunAndData
from iwae.data import shown_name
from iwae.io.text import counted
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run

if TYPE_CHECKING:
    from iwae.runs.checkpoint import Checkpoint
    from iwae.runs.records import RunRecord


@dataclass(frozen=True)
class Explore(OfRunAndData):
    """Write one HTML page to explore a run's model with: move its latent units, encode test images; and open it.

    The page holds the model and computes in the browser. It loads nothing and needs no server.
    """

    output: Path | None = None
    """The page (default: explore.html in the run's directory)."""
    no_open: bool = False
    """Only write the page, open no browser."""

    def run(self, arguments: list[str]) -> int:
        """Writes the page, prints its path and opens it where there is a screen."""
        run = Run(self.path)
        record = run.record
        with make_reporter(Console(stderr=True)) as reporter:
            from iwae.explore.content import page_content
            from iwae.explore.write import NAME, check_output, write_page
            from iwae.runs.data import run_dataset
            from iwae.runs.evaluate import kept_units

            output = self.output or run.path / NAME
            check_output(output)
            checkpoint = run.checkpoint(self.checkpoint)
            dataset = run_dataset(run, self.datasets_dir, reporter, self.dataset)
            content = page_content(checkpoint.model(), dataset, kept=kept_units(run), reporter=reporter)
            write_page(output, run.path.resolve().name, _facts(record, checkpoint), content)
        print_lines(f"Written: {output}")
        if not self.no_open and _has_screen():
            webbrowser.open(output.resolve().as_uri())
        return 0


def _facts(record: "RunRecord", checkpoint: "Checkpoint") -> list[tuple[str, str]]:
    """What the page says of the run."""
    from iwae.report.labels import objective

    config, data = RunConfig.from_json(record["config"]), record["data"]
    name = shown_name(data["name"], data["mark"])
    pruned = ""
    if (pruned_record := record.get("pruned")) is not None:
        layers = " and ".join(map(str, pruned_record["kept_inactive"]))
        kept = f", but for one that layer {layers} could not be without" if layers else ""
        pruned = f" (pruned: the inactive ones are gone{kept})"
    return [
        ("Trained as", f"{objective(config)}, seed {config.seed}"),
        ("Data", name if name.endswith(")") else f"{name} ({data['mark']})"),
        ("Latent units", ", ".join(map(str, checkpoint.architecture.latent)) + pruned),
        ("State", f"after {counted(checkpoint.stages_done, 'stage')}, {checkpoint.step:,} steps"),
    ]


def _has_screen() -> bool:
    """Whether a window can open: without one, `webbrowser` may start a browser that takes the terminal."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("win32", "darwin") or any(os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY"))
