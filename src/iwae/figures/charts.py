"""The charts of an analysis as PNG, each a pure function of arrays.

All are drawn for a light card, 5 inches wide, so that their text stays readable when a narrow page shrinks them.
"""

import io
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from PIL import Image

from iwae.evaluation.active_units import ACTIVE_THRESHOLD

WIDTH = 5.0
DPI = 200
# After Okabe and Ito and after Tol, darkened where needed to 3:1 against white; lines differ in their dashes too.
COLORS = ("#0072B2", "#C44E00", "#007A5A", "#AA3377", "#000000", "#7A5C00")
DASHES = ("-", "--", "-.", ":")
BLUE, ORANGE, GREY = COLORS[0], COLORS[1], "#8A8A8A"
LOWEST_DECADE = -8
GRID = (0.35, 0.35, 0.35)
PLAIN = FuncFormatter(lambda value, _: f"{value:,g}")
STYLE: dict[str, Any] = {
    "font.size": 11.5,
    "axes.titlesize": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "legend.frameon": False,
}


def chart_style(**changes: Any) -> AbstractContextManager[None]:
    settings: Any = {**STYLE, **changes}
    return matplotlib.rc_context(settings)


def new_figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")


def png(figure: Figure) -> bytes:
    """A PNG of at most 64 colours: charts have few, and a page carries many charts."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image = image.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    image.save(packed, format="PNG", optimize=True, dpi=(DPI, DPI))
    return packed.getvalue()


def log_variance_chart(variances: Sequence[np.ndarray]) -> bytes:
    """Histogram over units of the variance of their posterior means, logarithmic, one panel per layer.

    `variances` are arrays `[units]`, h_1 first. Values below 1e-8, also those that the correction for sampling
    made negative, stand in the lowest bin.
    """
    with chart_style():
        figure = new_figure(1.0 + 1.7 * len(variances))
        panels = figure.subplots(len(variances), 1, sharex=True, squeeze=False)[:, 0]
        exponents = [np.log10(np.maximum(values, 10.0**LOWEST_DECADE)) for values in variances]
        low = min(-3.0, np.floor(min(values.min() for values in exponents)))
        high = max(1.0, np.ceil(max(values.max() for values in exponents)))
        bins = np.linspace(low, high, round((high - low) * 4) + 1)
        threshold = np.log10(ACTIVE_THRESHOLD)
        for number, (axes, values) in enumerate(zip(panels, exponents, strict=True), 1):
            active = values > threshold
            axes.hist(values[~active], bins, color=GREY, hatch="///", edgecolor="white", linewidth=0.6)
            axes.hist(values[active], bins, color=BLUE, edgecolor="white", linewidth=0.6)
            axes.axvline(threshold, color="black", linestyle="--", linewidth=1.2)
            axes.set_ylabel("units")
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
            axes.set_title(f"Layer {number}: {len(values)} units", loc="left")
            axes.text(threshold - 0.08, 0.97, f"{np.sum(~active)} inactive", **_corner(axes, "right"))
            axes.text(threshold + 0.08, 0.97, f"{np.sum(active)} active", **_corner(axes, "left"))
        panels[-1].set_xlabel("variance of the unit's posterior mean over the data")
        ticks = np.arange(low, high + 1)[:: max(1, math.ceil((high - low) / 6))]
        panels[-1].set_xticks(ticks, [_power(tick, low) for tick in ticks])
        return png(figure)


def _corner(axes: Axes, side: str) -> dict[str, Any]:
    return {"transform": axes.get_xaxis_transform(), "ha": side, "va": "top"}


def _power(exponent: float, low: float) -> str:
    least = "≤" if exponent == low == LOWEST_DECADE else ""
    return f"{least}$10^{{{int(exponent)}}}$"


def log_weight_chart(relative: np.ndarray) -> bytes:
    """Distribution of log w minus the log of the example's mean weight, `[examples, k]`: of the samples as q draws
    them, and of the same samples counted by their weight, which is what the estimate is made of.
    """
    finite = relative[np.isfinite(relative)]
    with chart_style():
        figure = new_figure(3.3)
        axes = figure.subplots()
        low, high = np.percentile(finite, 0.5), max(float(finite.max()), 1.0)
        bins = np.linspace(min(low, -1.0), high, 61)
        for weights, color, label, style in (
            (None, BLUE, "samples from q", "-"),
            (np.exp(finite - finite.max()), ORANGE, "the same, counted by weight", "--"),
        ):
            density, edges = np.histogram(finite, bins, weights=weights)
            share = 100 * density / max(float(density.sum()), 1e-300)
            axes.stairs(share, edges, color=color, linestyle=style, linewidth=1.8, label=label)
            axes.stairs(share, edges, fill=True, color=color, alpha=0.15)
        axes.axvline(0.0, color="black", linestyle=":", linewidth=1.2)
        axes.set_xlabel("log w − log of the example's mean weight (nats)")
        axes.set_ylabel("% per bin")
        figure.legend(loc="outside upper left", ncols=2, handlelength=1.6, columnspacing=1.2)
        return png(figure)


def effective_sample_size_chart(values: np.ndarray, num_samples: int) -> bytes:
    """Histogram over examples of the effective sample size, `[examples]`, from 1 to k on a logarithmic axis."""
    shown = np.clip(values, 1.0, num_samples)
    with chart_style():
        figure = new_figure(3.0)
        axes = figure.subplots()
        axes.hist(
            shown, np.geomspace(1.0, max(num_samples, 2), 41).tolist(), color=BLUE, edgecolor="white", linewidth=0.5
        )
        median = float(np.median(shown))
        axes.axvline(median, color="black", linestyle="--", linewidth=1.2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(PLAIN)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.15)
        axes.text(
            median, 0.98, f"  median {median:.3g}  ", **_corner(axes, "left" if median**2 < num_samples else "right")
        )
        axes.set_xlabel(f"effective sample size of k = {num_samples:,}")
        axes.set_ylabel("examples")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        return png(figure)


@dataclass(frozen=True)
class Curve:
    """A run's training bound (nats per example) after each of `epochs`; `stage_ends` are the epochs at which a
    stage ended or will end, the last one's included.
    """

    name: str
    epochs: Sequence[int]
    bounds: Sequence[float]
    stage_ends: Sequence[int]


def training_chart(curves: Sequence[Curve]) -> bytes:
    """Bound per epoch, epochs on a logarithmic axis. One curve has its stages marked; several have a legend."""
    with chart_style():
        figure = new_figure(3.2 + (0.22 * len(curves) if len(curves) > 1 else 0))
        axes = figure.subplots()
        for index, curve in enumerate(curves):
            style = DASHES[(index // len(COLORS) + index) % len(DASHES)] if len(curves) > 1 else "-"
            color = COLORS[index % len(COLORS)]
            marker = "o" if len(curve.epochs) < 40 else None
            axes.plot(curve.epochs, curve.bounds, color=color, linestyle=style, marker=marker, ms=3.5, label=curve.name)
        last = max(max(curve.epochs) for curve in curves)
        axes.set_xscale("log")
        axes.set_xlim(0.9, max(last * 1.12, 2.0))
        axes.xaxis.set_major_formatter(PLAIN)
        ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if tick <= max(last, 2)]
        axes.set_xticks(ticks if last < 200 else [1, *[tick for tick in (10, 100, 1000) if tick <= last]])
        axes.xaxis.set_minor_locator(NullLocator())
        if len(curves) == 1:
            _mark_stages(axes, curves[0].stage_ends, last)
        else:
            figure.legend(loc="outside upper left", fontsize=9, handlelength=3)
        axes.set_xlabel("epoch")
        axes.set_ylabel("training bound (nats)")
        return png(figure)


def _mark_stages(axes: Axes, stage_ends: Sequence[int], last: int) -> None:
    """Shades every other stage and writes its number above; a stage is where its epochs' points stand."""
    edges = [0.9, *(end + 0.5 for end in stage_ends)]
    above = {"transform": axes.get_xaxis_transform(), "va": "bottom"}
    axes.text(0.86, 1.015, "stage", ha="right", **above)
    for number, (start, end) in enumerate(pairwise(edges), 1):
        if start > last:
            break
        end = min(end, max(last * 1.12, 2.0))
        axes.axvspan(start, end, color=BLUE, alpha=0.10 if number % 2 else 0.0, linewidth=0)
        axes.text(math.sqrt(start * end), 1.015, f"{number}", ha="center", **above)


def traversal_chart(
    images: np.ndarray, image_shape: tuple[int, int], values: Sequence[float], labels: Sequence[str]
) -> bytes:
    """Images `[units, values, visible]` in [0, 1] as labelled rows (one a unit) and columns (one a value)."""
    rows, columns = images.shape[:2]
    height, width = image_shape
    grid = images.reshape(rows, columns, height, width).transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    with chart_style(**{"axes.spines.left": False, "axes.spines.bottom": False}):
        figure = new_figure(0.85 + (WIDTH - 1.15) * rows * height / (columns * width))
        axes = figure.subplots()
        axes.imshow(grid, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
        for row in range(1, rows):
            axes.axhline(row * height - 0.5, color=GRID, linewidth=0.7)
        for column in range(1, columns):
            axes.axvline(column * width - 0.5, color=GRID, linewidth=0.7)
        step = 1.0 if max(values) - min(values) > 1 else 0.5
        shown = [(index, value) for index, value in enumerate(values) if (value / step).is_integer()]
        places = [(index + 0.5) * width - 0.5 for index, _ in shown]
        axes.set_xticks(places, [f"{value:g}".replace("-", "−") for _, value in shown])
        axes.set_yticks((np.arange(rows) + 0.5) * height - 0.5, labels)
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("value of the unit")
        figure.text(0.01, 0.995, "unit (variance)", va="top")
        return png(figure)
