"""`iwae data`: the datasets, what is there of them and how to get the rest."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from iwae.cli.console import make_reporter, print_lines
from iwae.data import dataset_status, obtain


@dataclass(frozen=True)
class Data:
    """List the datasets, or obtain and verify some.

    Without names: what is there, and what to do where something is missing.

    With names: download what is missing and verify it.
    """

    names: Positional[tuple[str, ...]] = ()
    """Datasets to obtain, by the names that are listed without any."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first and stored (also: IWAE_DATASETS_DIR)."""

    def run(self, arguments: list[str], *, default_datasets_dir: str | Path | None = None) -> int:
        """Obtains the named datasets, or lists all when none is named."""
        for name in self.names:
            with make_reporter() as reporter:
                paths = obtain(
                    name,
                    directory=self.datasets_dir,
                    default_directory=default_datasets_dir,
                    progress=reporter.obtaining,
                )
            print_lines(*(f"{name}: {path}" for path in paths))
        if not self.names:
            _list_datasets(self.datasets_dir)
        return 0


def _list_datasets(directory: Path | None) -> None:
    statuses = dataset_status(directory=directory)
    table = Table(box=None, pad_edge=False)
    for name in ("dataset", "state", "train / valid / test", "what"):
        table.add_column(name, no_wrap=name != "what")
    lines = ["", "Looked for, in this order, in:", *(f"  {path}" for path in statuses[0].directories)]
    for status in statuses:
        sizes = " / ".join(f"{size:,}" for size in status.sizes)
        table.add_row(f"{status.name} ({status.paper_name})", status.state, sizes, status.description)
        lines += [f"{status.name}: {file.path}" for file in status.files if file.path is not None]
        if status.advice:
            lines.append(f"{status.name}: {status.advice}")
    lines.append(
        "Your own data: --dataset FILE (.npz with train and test, .npy, .csv, .parquet, .h5ad), or a folder/ of images."
    )
    Console().print(table)
    print_lines(*lines)
