"""The commands of the program that accompanied the paper, for the scripts at the repository's root."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from iwae.cli.app import options_named, parse, usage_error
from iwae.cli.data import Data
from iwae.cli.train import Train
from iwae.errors import IWAEError
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.options import TrainOptions


@dataclass(frozen=True)
class Experiment:
    """Train one of the paper's models with its schedule, continuing where the run stopped, and measure it."""

    model: Annotated[Literal["vae", "iwae"] | None, arg(aliases=["-m"])] = None
    """Objective (default: vae)."""
    dataset: Annotated[str, arg(aliases=["-d"])] = "MNIST"
    """BinFixMNIST, MNIST or OMNI."""
    k: Annotated[int | None, arg(aliases=["-k"])] = None
    """Number of samples per example (default: 1); the paper has 1, 5 and 50."""
    layers: Annotated[int | None, arg(aliases=["-l"])] = None
    """Stochastic layers, 1 or 2 (default: 1)."""
    exp: Annotated[Literal["train", "iwae_to_vae", "vae_to_iwae"], arg(aliases=["-e"])] = "train"
    """train: from random weights; iwae_to_vae: a one-layer IWAE with k=50 from the trained one-layer VAE with k=1;
    vae_to_iwae: a one-layer VAE with k=1 from the trained one-layer IWAE with k=50. The last two fix model, k and
    layers."""
    checkpoint: Annotated[int | None, arg(aliases=["-c"])] = None
    """Restart from the state saved after this many stages (i + 1: after the stage of 3^i epochs)."""


@dataclass(frozen=True)
class Download:
    """Obtain MNIST and its fixed binarization, and verify them."""


def download(arguments: Sequence[str], *, default_datasets_dir: str | Path) -> int:
    """`python download_mnist.py`: obtains MNIST and the fixed binarization, and returns the exit status."""
    parse(Download, list(arguments), prog="download_mnist.py")
    return Data(names=("MNIST", "BinFixMNIST")).run([], default_datasets_dir=default_datasets_dir)


def experiment(arguments: Sequence[str], *, default_datasets_dir: str | Path, results_dir: str | Path) -> int:
    """`python experiments.py ...`: trains and measures one run, and returns the exit status."""
    with options_named(Experiment):
        asked = parse(Experiment, list(arguments), prog="experiments.py")
        command = Train(
            configuration=_configuration(asked, Path(results_dir)),
            training=TrainOptions(checkpoint=asked.checkpoint),
            results_dir=Path(results_dir),
        )
        return command.run(
            list(arguments), default_datasets_dir=Path(default_datasets_dir), program="python experiments.py"
        )


def _configuration(asked: Experiment, results_dir: Path) -> RunConfig:
    if asked.layers not in (None, 1, 2):
        raise IWAEError(f"`layers` must be 1 or 2, the paper's networks, got {asked.layers}: for others see iwae train")
    given = {name: value for name in ("model", "k", "layers") if (value := getattr(asked, name)) is not None}
    if asked.exp == "train":
        return RunConfig.of(**{"dataset": asked.dataset, "model": "vae", "layers": 1, **given})
    if given:
        options = " and ".join(f"--{name} {value}" for name, value in given.items())
        raise usage_error(f"--exp {asked.exp} has its own model, k and layers: leave out {options}", "experiments.py")
    vae = RunConfig.of(dataset=asked.dataset, model="vae", k=1)
    iwae = RunConfig.of(dataset=asked.dataset, model="iwae", k=50)
    # The README of the paper's program names first what is trained; its code did the opposite.
    source, target = (vae, iwae) if asked.exp == "iwae_to_vae" else (iwae, vae)
    path = results_dir / source.name()
    command = f"python experiments.py --model {source.model} --dataset {asked.dataset} --k {source.k} --layers 1"
    run = Run(path)
    done = run.stage_checkpoints() if run.exists else []
    total = len(source.full_schedule())
    if total not in done:
        state = f"has {done[-1]} of {total} stages" if done else "is missing"
        raise IWAEError(f"the run to start from, {path}, {state}: make it with `{command}`")
    print(
        f"Training a one-layer {str(target.model).upper()} with k={target.k}, initialized at the trained one-layer"
        f" {str(source.model).upper()} with k={source.k} ({path})."
    )
    return replace(target, init_from=str(path))
