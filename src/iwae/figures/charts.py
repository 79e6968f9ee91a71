"""The charts of an analysis and a diagnosis, each a pure function of numbers: PNG, or matplotlib's figure.

All are drawn for a light card, 5 inches wide, so that their text stays readable when a narrow page shrinks them.
matplotlib, of the extra `report`, is imported when the first is drawn.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, ParamSpec

import numpy as np
from PIL import Image

from iwae.errors import needs_extra
from iwae.figures import grids

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
WIDTH = 5.0
DPI = 200
# After Okabe and Ito and after Tol, darkened where needed to 3:1 against white; lines differ in their dashes too.
COLORS = ("#0072B2", "#C44E00", "#007A5A", "#AA3377", "#000000", "#7A5C00")
DASHES = ("-", "--", "-.", ":")
BLUE, ORANGE, GREY = COLORS[0], COLORS[1], "#8A8A8A"
LOWEST_DECADE = -8
GRID = (0.35, 0.35, 0.35)
STYLE: Any = {
    "font.size": 11.5,
    "axes.titlesize": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "legend.frameon": False,
}


def _new_figure(height: float) -> "Figure":
    """A figure of `height` inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")


def _png(figure: "Figure") -> bytes:
    """A PNG of at most 64 colours: charts have few, and a page carries many charts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    return grids.png(image.quantize(64, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE), dpi=(DPI, DPI))


class Chart(Generic[P]):
    """A chart, as a function of numbers: called, it is a PNG; `figure` gives matplotlib's figure."""

    def __init__(self, draw: "Callable[P, Figure]"):
        self._draw = draw
        functools.update_wrapper(self, draw)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> bytes:
        with _style():
            return _png(self._draw(*args, **kwargs))

    def figure(self, *args: P.args, **kwargs: P.kwargs) -> "Figure":
        """The figure, drawn once: some of the style is read only then."""
        with _style():
            figure = self._draw(*args, **kwargs)
            figure.draw_without_rendering()
        # Notebooks show it also where pyplot was never imported.
        figure._repr_png_ = functools.partial(_for_notebook, figure)  # pyright: ignore[reportAttributeAccessIssue]
        return figure


def _for_notebook(figure: "Figure") -> tuple[bytes, dict[str, int]]:
    """A PNG, and the width in pixels at which it is shown."""
    return _png(figure), {"width": round(WIDTH * DPI / 2)}


@contextmanager
def _style() -> Iterator[None]:
    """The style of all charts. Raises IWAEError without matplotlib."""
    needs_extra("matplotlib", "report")
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def _plain(value: float, _: float) -> str:
    """Numbers as one writes them: 0.5, not 5 times a power of ten."""
    return f"{value:,g}"


@Chart
def log_variance_chart(variances: Sequence[np.ndarray], threshold: float) -> "Figure":
    """Histogram over units of the variance of their posterior means, logarithmic, one panel per layer.

    `variances` are arrays `[units]`, h_1 first; a unit is active above `threshold`. Values below 1e-8, also those
    that the correction for sampling made negative, stand in the lowest bin.
    """
    figure = _new_figure(1.0 + 1.7 * len(variances))
    panels = figure.subplots(len(variances), 1, sharex=True, squeeze=False)[:, 0]
    exponents = [np.log10(np.maximum(values, 10.0**LOWEST_DECADE)) for values in variances]
    low = min(-3.0, np.floor(min(values.min() for values in exponents)))
    high = max(1.0, np.ceil(max(values.max() for values in exponents)))
    bins = np.linspace(low, high, round((high - low) * 4) + 1)
    limit = np.log10(threshold)
    for number, (axes, values) in enumerate(zip(panels, exponents, strict=True), 1):
        active = values > limit
        axes.hist(values[~active], bins, color=GREY, hatch="///", edgecolor="white", linewidth=0.6)
        axes.hist(values[active], bins, color=BLUE, edgecolor="white", linewidth=0.6)
        axes.axvline(limit, color="black", linestyle="--", linewidth=1.2)
        axes.set(ylabel="units", ylim=(0, axes.get_ylim()[1] * 1.3))
        axes.locator_params("y", nbins=4, integer=True)
        axes.set_title(f"Layer {number}: {len(values)} units", loc="left")
        axes.text(limit - 0.08, 0.97, f"{np.sum(~active)} inactive", **_corner(axes, "right"))
        axes.text(limit + 0.08, 0.97, f"{np.sum(active)} active", **_corner(axes, "left"))
    panels[-1].set_xlabel("variance of the unit's posterior mean over the data")
    ticks = np.arange(low, high + 1)[:: max(1, math.ceil((high - low) / 6))]
    panels[-1].set_xticks(ticks, [_power(tick, low) for tick in ticks])
    return figure


def _corner(axes: "Axes", side: str) -> dict[str, Any]:
    return {"transform": axes.get_xaxis_transform(), "ha": side, "va": "top"}


def _power(exponent: float, low: float) -> str:
    least = "≤" if exponent == low == LOWEST_DECADE else ""
    return f"{least}$10^{{{int(exponent)}}}$"


@Chart
def log_weight_chart(relative: np.ndarray) -> "Figure":
    """Distribution of log w minus the log of the example's mean weight, `[examples, k]`: of the samples as q draws
    them, and of the same samples counted by their weight, which is what the estimate is made of.
    """
    finite = relative[np.isfinite(relative)]
    figure = _new_figure(3.3)
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
    axes.set(xlabel="log w − log of the example's mean weight (nats)", ylabel="% per bin")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.6, columnspacing=1.2)
    return figure


@Chart
def effective_sample_size_chart(values: np.ndarray, num_samples: int) -> "Figure":
    """Histogram over examples of the effective sample size, `[examples]`, from 1 to k on a logarithmic axis."""
    shown = np.clip(values, 1.0, num_samples)
    figure = _new_figure(3.0)
    axes = figure.subplots()
    bins = np.geomspace(1.0, max(num_samples, 2), 41).tolist()
    axes.hist(shown, bins, color=BLUE, edgecolor="white", linewidth=0.5)
    median = float(np.median(shown))
    axes.axvline(median, color="black", linestyle="--", linewidth=1.2)
    side = "left" if median**2 < num_samples else "right"
    axes.set(xscale="log", ylim=(0, axes.get_ylim()[1] * 1.15), ylabel="examples")
    axes.text(median, 0.98, f"  median {median:.3g}  ", **_corner(axes, side))
    axes.set_xlabel(f"effective sample size of k = {num_samples:,}")
    axes.xaxis.set_major_formatter(_plain)
    axes.locator_params("y", nbins=5, integer=True)
    return figure


@dataclass(frozen=True)
class Curve:
    """A run's training bound (nats per example) after each of `epochs`; `stage_ends` are the epochs at which a
    stage ended or will end, the last one's included.
    """

    name: str
    epochs: Sequence[int]
    bounds: Sequence[float]
    stage_ends: Sequence[int]


@Chart
def training_chart(curves: Sequence[Curve]) -> "Figure":
    """Bound per epoch, epochs on a logarithmic axis. One curve has its stages marked; several have a legend."""
    several = len(curves) > 1
    figure = _new_figure(3.2 + 0.22 * len(curves) * several)
    axes = figure.subplots()
    for index, curve in enumerate(curves):
        dashes = DASHES[(index // len(COLORS) + index) % len(DASHES)]
        look = {"color": COLORS[index % len(COLORS)], "marker": "o" if len(curve.epochs) < 40 else None, "ms": 3.5}
        axes.plot(curve.epochs, curve.bounds, linestyle=dashes, label=curve.name, **look)
    last = max(max(curve.epochs) for curve in curves)
    axes.set(xscale="log", xlim=(0.9, max(last * 1.12, 2.0)), xlabel="epoch", ylabel="training bound (nats)")
    axes.xaxis.set_major_formatter(_plain)
    ticks = (1, 2, 5, 10, 20, 50, 100) if last < 200 else (1, 10, 100, 1000)
    axes.set_xticks([tick for tick in ticks if tick <= max(last, 2)])
    axes.set_xticks([], minor=True)
    if several:
        figure.legend(loc="outside upper left", fontsize=9, handlelength=3)
    else:
        _mark_stages(axes, curves[0].stage_ends, last)
    return figure


def _mark_stages(axes: "Axes", stage_ends: Sequence[int], last: int) -> None:
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


@Chart
def traversal_chart(
    images: np.ndarray, image_shape: tuple[int, ...], values: Sequence[float], labels: Sequence[str]
) -> "Figure":
    """Images `[units, values, visible]`, as `grids.shades` takes them, as labelled rows (one a unit) and columns (one a
    value).
    """
    rows, columns = images.shape[:2]
    height, width, *colours = image_shape
    cells = grids.shades(images)[0].reshape(rows, columns, height, width, *colours)
    grid = np.moveaxis(cells, 2, 1).reshape(rows * height, columns * width, *colours)
    inches = 0.85 + (WIDTH - 1.15) * rows * height / (columns * width)
    figure = _new_figure(inches)
    axes = figure.subplots()
    axes.spines[:].set_visible(False)
    axes.imshow(grid, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="equal")
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
    return figure


@dataclass(frozen=True)
class Line:
    """A quantity of one estimator by k, ascending. Where a point is not `visible`, noise alone may have made it: its
    value is then a limit, or NaN.
    """

    name: str
    k: Sequence[int]
    values: Sequence[float]
    visible: Sequence[bool]


@Chart
def estimator_chart(
    panels: Mapping[str, tuple[str, Sequence[Line]]], *, slope: tuple[str, float] | None = None
) -> "Figure":
    """Quantities of gradient estimators over k, both logarithmic: under each title a panel, with the label of its
    axis and its lines. `slope`, a name and a power of k, adds a thin line that goes through the first one's point at
    its smallest k above 1.
    """
    figure = _new_figure(6.4)
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, (label, lines)) in zip(column, panels.items(), strict=True):
        for number, line in enumerate(lines):
            _draw_line(axes, line, number)
        axes.set(xscale="log", yscale="log", ylabel=label, title=title)
        if not np.isfinite(np.concatenate([line.values for line in lines])).any():
            axes.set_ylim(0.1, 1.0)  # With nothing to draw, a logarithmic axis has no limits.
        _plain_ticks(axes, sorted({k for line in lines for k in line.k}))
    drawn = [line for _, lines in panels.values() for line in lines]
    later = [point for point in zip(drawn[0].k, drawn[0].values, strict=True) if point[0] > 1]
    if slope is not None and len(later) > 1:
        ks = np.array([k for k, _ in later], float)
        column[0].plot(ks, later[0][1] * (ks / ks[0]) ** slope[1], color=GREY, lw=1, ls=":", label=slope[0])
    column[-1].set_xlabel("number of samples k")
    handles, labels = column[0].get_legend_handles_labels()
    if not all(all(line.visible) for line in drawn):
        handles.append(column[0].scatter([], [], s=30, marker="v", c="white", edgecolors=GREY))
        labels.append("not to be told from zero: at most this")
    figure.legend(handles, labels, fontsize=9.5, loc="outside upper center", ncols=2)
    return figure


def _draw_line(axes: "Axes", line: Line, number: int) -> None:
    """Joined where it is visible; what noise may have made is a limit, and no part of the line."""
    color, values, visible = COLORS[number % len(COLORS)], np.array(line.values, float), np.array(line.visible)
    look = {"color": color, "ls": DASHES[number % len(DASHES)], "lw": 1.8, "marker": "o", "ms": 4.5}
    axes.plot(line.k, np.where(visible, values, math.nan), label=line.name, **look)
    axes.scatter(line.k, np.where(visible, math.nan, values), s=30, marker="v", c="white", edgecolors=color, zorder=3)


def _plain_ticks(axes: "Axes", ks: Sequence[int]) -> None:
    axes.set_xticks(ks)
    low, high = axes.get_ylim()
    subs = (1.0, 2.0, 5.0) if high / low > 5 else tuple(np.arange(1.0, 10.0, 0.5 if high / low > 1.6 else 0.1))
    axes.locator_params("y", subs=subs)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_plain)
        axis.set_ticks([], minor=True)


@Chart
def ladder_chart(
    ks: Sequence[int], lines: Mapping[str, Sequence[float]], asymptote: tuple[float, float] | None
) -> "Figure":
    """NLLs in nats over k, logarithmic, by their names; `asymptote` is that of annealed importance sampling, with its
    standard error over chains.
    """
    figure = _new_figure(3.2)
    axes = figure.subplots()
    for number, (name, values) in enumerate(lines.items()):
        _draw_line(axes, Line(name, ks, values, [True] * len(ks)), number)
    if asymptote is not None:
        value, error = asymptote
        axes.axhline(value, color=GREY, ls="--", lw=1.2, label="AIS")
        axes.axhspan(value - error, value + error, color=GREY, alpha=0.3, lw=0)
    axes.set(xscale="log", xlabel="number of samples k", ylabel="NLL (nats)")
    axes.set_xticks(ks)
    axes.xaxis.set_major_formatter(_plain)
    axes.xaxis.set_ticks([], minor=True)
    axes.legend(fontsize=9.5)
    return figure


@Chart
def pareto_chart(shapes: np.ndarray, limit: float) -> "Figure":
    """Histogram over examples of Pareto k-hat, with the limit above which weights are not to be relied on."""
    figure = _new_figure(2.9)
    axes = figure.subplots()
    axes.hist(shapes[np.isfinite(shapes)], bins=30, color=BLUE)
    axes.axvline(limit, color=GREY, ls="--", lw=1.2, label=f"not to be relied on above {limit:.2f}")
    axes.legend(fontsize=9.5)
    axes.locator_params("y", integer=True)
    axes.set(xlabel="Pareto k-hat of an example's weights", ylabel="examples")
    return figure


@Chart
def image_chart(grid: np.ndarray) -> "Figure":
    """A grid of images, uint8 `[height, width]` or `[height, width, 3]`, as it is."""
    height, width = grid.shape[:2]
    figure = _new_figure(WIDTH * height / width)
    axes = figure.subplots()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    return figure
