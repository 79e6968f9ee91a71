"""The trained models that this project's repository has, beside the paper's figures."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from iwae.errors import IWAEError
from iwae.evaluation.likelihood import standard_error
from iwae.io.files import expanded
from iwae.io.json import finite_or_none
from iwae.paper.cells import published
from iwae.runs.directory import Run
from iwae.runs.export_weights import train_command
from iwae.runs.listing import find_runs, summary

CHECKOUT = Path(__file__).parents[3] / "pretrained"


def pretrained(directory: str | Path | None = None) -> list[dict[str, Any]]:
    """One record for every run right below `directory`, by name: that of `iwae.results`, with the `command` that trains
    it, the paper's figures for such a model, `paper_nll` in nats and `paper_active`, and by how many nats log p(x) by
    AIS lies above L_k, `ais_above` with its standard error over the examples that both have, or None. The default is
    `pretrained/` of this project's checkout, or else of the working directory.

    A run's own directory gives its record alone; runs that were put aside are left out.

    Raises IWAEError where there is no run, or one that can't be read.
    """
    place = expanded(directory) if directory is not None else CHECKOUT if CHECKOUT.is_dir() else Path("pretrained")
    runs = [Run(place)] if Run(place).exists else [run for run in find_runs(place) if not run.is_put_aside]
    if not runs:
        what = "no trained models here" if place.is_dir() else "there is no such directory"
        raise IWAEError(f"{place}: {what}: those of the project are in pretrained/ of its repository")
    return [_record(Run.open(run.path)) for run in runs]


def _record(run: Run) -> dict[str, Any]:
    config, row = run.config, summary(run)
    is_paper = config.model is not None and not config.latent
    paper = published(config.dataset, config.model or "", config.k, row["layers"]) if is_paper else None
    figures = {"paper_nll": paper and paper.nll, "paper_active": paper and paper.active}
    above, stderr = _above(run)
    return {**row, **figures, "ais_above": above, "ais_above_stderr": stderr, "command": train_command(config)}


def _above(run: Run) -> tuple[float | None, float | None]:
    """The mean of what AIS gives more than L_k of the same examples, with its standard error; None where one of them is
    not measured, or can't be read.
    """
    (_, path), results = run.annealed(), run.results()
    if path is None or results is None:
        return None, None
    with contextlib.suppress(OSError, ValueError, KeyError):
        files = path.with_suffix(".npz"), run.path / results["files"]["per_example"]
        annealed, bounds = (np.load(file)["log_likelihood"] for file in files)
        more = np.subtract(*(values[: min(len(annealed), len(bounds))] for values in (annealed, bounds)))
        return float(more.mean()), finite_or_none(standard_error(more))
    return None, None
