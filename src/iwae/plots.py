"""Plots as figures of matplotlib, for notebooks and papers (the extra `report`).

iwae.plots.ladder(iwae.ladder(model, data, [5, 50, 500])).savefig("ladder.pdf")
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from iwae.errors import IWAEError
from iwae.evaluation.active_units import ACTIVE_THRESHOLD, ActiveUnits
from iwae.evaluation.importance_weights import pareto_limit
from iwae.evaluation.likelihood import Likelihoods
from iwae.figures import charts, grids

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["active_units", "effective_sample_size", "images", "ladder", "pareto_k", "training"]


def training(*runs: str | Path) -> "Figure":
    """The training bound of runs, by their directories, in nats per example over epochs.

    Raises IWAEError for what is no path, for a directory without a run, and where none has trained an epoch.
    """
    wrong = [type(run).__name__ for run in runs if not isinstance(run, str | Path)]
    if wrong:
        raise IWAEError(f"`runs` are directories, given one by one: iwae.plots.training(*directories), got {wrong[0]}")
    from iwae.runs.analyze import run_name, training_curve
    from iwae.runs.directory import Run

    opened = [Run.open(path) for path in runs]
    found = [training_curve(run_name(run.path), run.metrics.lines(), run.record["schedule"]) for run in opened]
    curves = [curve for curve in found if curve is not None]
    if not curves:
        raise IWAEError("`runs` have no epoch to draw: give the directory of a run that has trained")
    return charts.training_chart.figure(curves)


def active_units(found: ActiveUnits) -> "Figure":
    """The variances of the units' posterior means, of `iwae.active_units`, layer by layer."""
    return charts.log_variance_chart.figure(found.variances, ACTIVE_THRESHOLD)


def ladder(found: Sequence[Likelihoods]) -> "Figure":
    """The NLL in nats over the number of samples k, of `iwae.ladder`, with that by JVI-2. Raises IWAEError for none."""
    if not found:
        raise IWAEError("`found` has no likelihoods: give what iwae.ladder returns")
    lines = {"-L_k": [each.nll for each in found], "JVI-2": [each.jvi2_nll for each in found]}
    return charts.ladder_chart.figure([each.num_samples for each in found], lines, None)


def effective_sample_size(found: Likelihoods) -> "Figure":
    """The effective sample size of every example, of `iwae.likelihoods`."""
    return charts.effective_sample_size_chart.figure(found.effective_sample_size, found.num_samples)


def pareto_k(found: Likelihoods) -> "Figure":
    """Pareto k-hat of every example's weights, of `iwae.likelihoods`. Raises IWAEError where it has none, for fewer
    than 100 samples.
    """
    if not np.isfinite(found.pareto_k).any():
        raise IWAEError(f"`found` has no Pareto k-hat: give 100 samples or more, it has {found.num_samples}")
    return charts.pareto_chart.figure(found.pareto_k, pareto_limit(found.num_samples))


def images(values: ArrayLike, shape: tuple[int, ...]) -> "Figure":
    """Images `[n, visible]` of a shape (height, width), or (height, width, 3) in colours, as a near-square grid. Values
    are shown as in [0, 1]; where one is above 1, as in [0, 255]; else from the least to the greatest of all.

    Raises IWAEError for values that are no images of this shape.
    """
    pixels = np.asarray(values)
    if pixels.size == 0 or pixels.dtype.kind not in "fiub" or pixels[0].size != math.prod(shape):
        found = f"{pixels.dtype} of shape {pixels.shape}"
        raise IWAEError(f"`values` must be numbers [n, visible], of one image or more of shape {shape}, got {found}")
    (cells,) = grids.shades(pixels)
    cells = cells.reshape(-1, *shape)
    return charts.image_chart.figure(grids.tile(cells, math.ceil(math.sqrt(len(cells)))))
