"""`iwae explore`: a local page on a trained model. JAX and the web server are imported only when it runs."""

import os
import sys
import threading
import webbrowser
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from tyro.conf import Positional

from iwae.cli.console import make_reporter, print_lines
from iwae.data import shown_name
from iwae.errors import IWAEError
from iwae.runs.config import RunConfig
from iwae.runs.directory import RunDirectory

if TYPE_CHECKING:
    from iwae.data import Dataset
    from iwae.explore.model_view import ModelView
    from iwae.runs.checkpoint import Checkpoint
    from iwae.runs.records import DataRecord, RunRecord
    from iwae.runs.reporter import Reporter

PORT = 8300
REQUIRED = ("starlette", "uvicorn")


@dataclass(frozen=True)
class Explore:
    """Open a local page on a run's model: move its latent units, encode test images.

    The page is served on 127.0.0.1 only, until Ctrl-C.
    """

    path: Positional[Path]
    """The run's directory."""
    port: int = PORT
    """Port of the page; 0 for any free one."""
    checkpoint: int | None = None
    """Explore the state after this many stages (default: the newest)."""
    dataset: Path | None = None
    """Where your own data is now, if it has moved since training."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first (also: IWAE_DATASETS_DIR)."""
    no_browser: bool = False
    """Only print the page's address, open no browser."""

    def run(self, arguments: list[str]) -> int:
        """Serves the page until it is interrupted, which is its regular end: exit status 0."""
        check_installed()
        run = RunDirectory(self.path)
        run.read_record()
        from iwae.explore.server import create_app, listen, serve
        from iwae.runs.evaluate import run_dataset

        # The port first: whoever has to choose another need not wait for the model.
        with listen(self.port) as listener:
            port = listener.getsockname()[1]
            with make_reporter(Console(stderr=True)) as reporter:
                checkpoint = (
                    run.newest_checkpoint() if self.checkpoint is None else run.load_checkpoint(self.checkpoint)
                )
                dataset = run_dataset(run, self.datasets_dir, reporter, self.dataset)
                view = _view(run, checkpoint, dataset, reporter)
            title = run.path.resolve().name
            app = create_app(view, port, title, _facts(run.read_record(), checkpoint))
            url = f"http://127.0.0.1:{port}/"
            try:
                print_lines(f"Exploring {run.path} at {url} (Ctrl-C ends it)")
                sys.stdout.flush()
                if not self.no_browser and _has_screen():
                    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
                serve(app, listener)
            except KeyboardInterrupt as stopped:
                # Ctrl-C is how this command ends, from the moment that it says so; another signal is none of its own.
                if getattr(stopped, "exit_status", 130) != 130:
                    raise
            print("Stopped.")
        return 0


def check_installed() -> None:
    """Raises IWAEError where the web server is not installed."""
    missing = [name for name in REQUIRED if find_spec(name) is None]
    if missing:
        raise IWAEError(
            f"`iwae explore` needs {' and '.join(missing)}, which not every user wants: pip install 'iwae[explore]'"
        )


def _view(run: RunDirectory, checkpoint: "Checkpoint", dataset: "Dataset", reporter: "Reporter") -> "ModelView":
    from iwae.evaluation.active_units import active_units
    from iwae.explore.model_view import ModelView
    from iwae.runs.evaluate import kept_units

    reporter.message("Measuring the active units, compiling ...")
    model = checkpoint.model()
    view = ModelView(model, dataset, active_units(model, dataset), kept_units(run))
    view.compile()
    return view


def _facts(record: "RunRecord", checkpoint: "Checkpoint") -> list[tuple[str, str]]:
    """What the page says of the run."""
    from iwae.report.labels import objective

    config, data = RunConfig.from_json(record["config"]), record["data"]
    pruned = ""
    if (pruned_record := record.get("pruned")) is not None:
        layers = " and ".join(map(str, pruned_record["kept_inactive"]))
        kept = f", but for one that layer {layers} could not be without" if layers else ""
        pruned = f" (pruned: the inactive ones are gone{kept})"
    stages = checkpoint.stages_done
    return [
        ("Trained as", f"{objective(config)}, seed {config.seed}"),
        ("Data", _data_fact(data)),
        ("Latent units", ", ".join(map(str, checkpoint.architecture.latent)) + pruned),
        ("State", f"after {stages} stage{'' if stages == 1 else 's'}, {checkpoint.step:,} steps"),
    ]


def _data_fact(data: "DataRecord") -> str:
    name = shown_name(data["name"], data["mark"])
    return name if name.endswith(")") else f"{name} ({data['mark']})"


def _has_screen() -> bool:
    """Whether a window can open: without one, `webbrowser` may start a browser that takes the terminal."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("win32", "darwin") or any(os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY"))
