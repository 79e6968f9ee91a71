"""The command line, `iwae`, and the paper's own commands.

The commands are imported when one is called, so that what hinders that (memory, files to open) is one line too.
"""

from collections.abc import Sequence
from pathlib import Path

from iwae.cli.failures import fail_to_load


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status: 0, 1 for a failure, 2 for bad usage, 130 or 143 after
    an interruption.
    """
    try:
        from iwae.cli.app import run_command_line
    except (ImportError, MemoryError, OSError) as error:
        return fail_to_load(error)
    return run_command_line(argv)


def paper_download(arguments: Sequence[str], *, default_datasets_dir: str | Path) -> int:
    """`python download_mnist.py`: obtains MNIST and the fixed binarization, and returns the exit status."""
    try:
        from iwae.cli.original import download
    except (ImportError, MemoryError, OSError) as error:
        return fail_to_load(error)
    return download(arguments, default_datasets_dir=default_datasets_dir)


def paper_experiment(arguments: Sequence[str], *, default_datasets_dir: str | Path, results_dir: str | Path) -> int:
    """`python experiments.py ...`: trains and measures one run, and returns the exit status."""
    try:
        from iwae.cli.original import experiment
    except (ImportError, MemoryError, OSError) as error:
        return fail_to_load(error)
    return experiment(arguments, default_datasets_dir=default_datasets_dir, results_dir=results_dir)


__all__ = ["main", "paper_download", "paper_experiment"]
