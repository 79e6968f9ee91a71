"""The command line, `iwae`, and the paper's own commands."""

from collections.abc import Sequence
from pathlib import Path

from iwae.cli.app import guarded, main

__all__ = ["main", "paper_download", "paper_experiment"]


def paper_download(arguments: Sequence[str], *, default_datasets_dir: str | Path) -> int:
    """`python download_mnist.py`: obtains MNIST and the fixed binarization, and returns the exit status."""

    def run() -> int:
        from iwae.cli.original import download

        return download(arguments, default_datasets_dir=default_datasets_dir)

    return guarded(run)


def paper_experiment(arguments: Sequence[str], *, default_datasets_dir: str | Path, results_dir: str | Path) -> int:
    """`python experiments.py ...`: trains and measures one run, and returns the exit status."""

    def run() -> int:
        from iwae.cli.original import experiment

        return experiment(arguments, default_datasets_dir=default_datasets_dir, results_dir=results_dir)

    return guarded(run)
