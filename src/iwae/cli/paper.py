"""The commands of the program that accompanied the paper, for the scripts at the repository's root."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from iwae.cli.app import guarded, parse
from iwae.cli.commands import Data, Train
from iwae.runs.config import RunConfig, TrainOptions


@dataclass(frozen=True)
class Experiment:
    """Train one of the paper's models with its schedule, continuing where the run stopped, and measure it."""

    model: Annotated[Literal["vae", "iwae"], arg(aliases=["-m"])] = "vae"
    """Objective."""
    dataset: Annotated[str, arg(aliases=["-d"])] = "MNIST"
    """BinFixMNIST, MNIST or OMNI."""
    k: Annotated[int, arg(aliases=["-k"])] = 1
    """Number of samples per example; the paper has 1, 5 and 50."""
    layers: Annotated[int, arg(aliases=["-l"])] = 1
    """Stochastic layers, 1 or 2."""
    checkpoint: Annotated[int | None, arg(aliases=["-c"], metavar="INT")] = None
    """Restart from the state saved after this many stages (i + 1: after the stage of 3^i epochs)."""


def paper_download(*, default_datasets_dir: str | Path) -> int:
    """`python download_mnist.py`: obtains MNIST and the fixed binarization."""
    return guarded(lambda: Data(names=("MNIST", "BinFixMNIST")).run([], default_datasets_dir=default_datasets_dir))


def paper_experiment(arguments: Sequence[str], *, default_datasets_dir: str | Path, results_dir: str | Path) -> int:
    """`python experiments.py ...`: trains and measures one run, and returns the exit status."""

    def run() -> int:
        asked = parse(Experiment, list(arguments), prog="experiments.py")
        command = Train(
            configuration=RunConfig(dataset=asked.dataset, model=asked.model, k=asked.k, layers=asked.layers),
            training=TrainOptions(checkpoint=asked.checkpoint),
            results_dir=Path(results_dir),
        )
        return command.run(
            list(arguments), default_datasets_dir=Path(default_datasets_dir), program="python experiments.py"
        )

    return guarded(run)
