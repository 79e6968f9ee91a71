"""Charts of gradient estimators over k, each a pure function of figures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from iwae.evaluation.gradient_quality import GROUPS, EstimatorQuality, Gap, GradientQuality
from iwae.figures.charts import BLUE, COLORS, DASHES, GREY, PLAIN, chart_style, new_figure, png


@dataclass(frozen=True)
class Line:
    """One estimator's figures by k, ascending."""

    name: str
    k: tuple[int, ...]
    encoder: tuple[GradientQuality, ...]
    decoder: tuple[GradientQuality, ...]


def lines_of(names: Sequence[str], found: Sequence[EstimatorQuality]) -> list[Line]:
    """One line for each name; `names` and `found` go together."""
    lines = []
    for name in dict.fromkeys(names):
        points = sorted((q for n, q in zip(names, found, strict=True) if n == name), key=lambda q: q.objective.k)
        lines.append(
            Line(
                name,
                tuple(point.objective.k for point in points),
                tuple(point.encoder for point in points),
                tuple(point.decoder for point in points),
            )
        )
    return lines


def signal_to_noise_chart(lines: Sequence[Line]) -> bytes:
    """The gradient's signal-to-noise ratio over k, both logarithmic, encoder above decoder."""

    def visible(found: GradientQuality) -> tuple[float, bool]:
        # A signal that the number of draws can't tell from zero has no place on a logarithmic axis.
        return (found.signal_to_noise if found.mean_norm > 0 else math.nan), True

    return _over_k(lines, dict.fromkeys(GROUPS, ("signal-to-noise ratio", visible)), slope=-0.5)


def bias_chart(lines: Sequence[Line], reference_k: int) -> bytes:
    """Over k: of the encoder the bias at that k, of the decoder the distance from the gradient at `reference_k`;
    where they can't be told from zero, a mark at what could have been seen.
    """

    def of(gap: Callable[[GradientQuality], Gap]) -> Callable[[GradientQuality], tuple[float, bool]]:
        return lambda found: (max(gap(found).norm, gap(found).resolution), gap(found).is_visible)

    panels = {
        "encoder": ("bias at this k", of(lambda found: found.bias)),
        "decoder": (f"distance from k = {reference_k}", of(lambda found: found.to_large_k)),
    }
    return _over_k(lines, panels)


# Of one figure: what to draw, and whether it is more than noise allows.
Figure = Callable[[GradientQuality], tuple[float, bool]]


def _over_k(lines: Sequence[Line], panels_of: dict[str, tuple[str, Figure]], slope: float | None = None) -> bytes:
    with chart_style():
        figure = new_figure(6.4)
        panels = figure.subplots(2, 1, sharex=True)
        for axes, group in zip(panels, GROUPS, strict=True):
            label, value = panels_of[group]
            for number, line in enumerate(lines):
                _draw_line(axes, line, [value(found) for found in getattr(line, group)], number)
            axes.set(xscale="log", yscale="log", ylabel=label, title=group)
            _plain_ticks(axes, sorted({k for line in lines for k in line.k}))
        if slope is not None:
            _reference_slope(panels[0], lines, slope)
        panels[1].set_xlabel("number of samples k")
        handles, labels = panels[0].get_legend_handles_labels()
        figures = (panels_of[group][1](found) for group in GROUPS for line in lines for found in getattr(line, group))
        if not all(is_visible for _, is_visible in figures):
            handles.append(panels[0].scatter([], [], s=30, marker="v", c="white", edgecolors=GREY))
            labels.append("not to be told from zero: at most this")
        figure.legend(handles, labels, fontsize=9.5, loc="outside upper center", ncols=2)
        return png(figure)


def _draw_line(axes: Axes, line: Line, figures: Sequence[tuple[float, bool]], number: int) -> None:
    """Joined where they are visible; what noise may have made is a limit, and no part of the line."""
    color = COLORS[number % len(COLORS)]
    seen = [value if is_visible else math.nan for value, is_visible in figures]
    limits = [math.nan if is_visible else value for value, is_visible in figures]
    axes.plot(line.k, seen, color=color, ls=DASHES[number % len(DASHES)], lw=1.8, marker="o", ms=4.5, label=line.name)
    axes.scatter(line.k, limits, s=30, marker="v", c="white", edgecolors=color, zorder=3)


def _reference_slope(axes: Axes, lines: Sequence[Line], slope: float) -> None:
    """A thin line that falls as k^slope through the first estimator's point at its smallest k above 1."""
    ks = np.array([k for k in lines[0].k if k > 1], float)
    if len(ks) < 2:
        return
    at = lines[0].encoder[lines[0].k.index(int(ks[0]))].signal_to_noise
    axes.plot(ks, at * (ks / ks[0]) ** slope, color=GREY, lw=1, ls=":", label="1/√k")


def _plain_ticks(axes: Axes, ks: Sequence[int]) -> None:
    """Numbers as one writes them: 0.5, not 5 times a power of ten."""
    axes.set_xticks(ks)
    low, high = axes.get_ylim()
    subs = (1.0, 2.0, 5.0) if high / low > 5 else tuple(np.arange(1.0, 10.0, 0.5 if high / low > 1.6 else 0.1))
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PLAIN)
        axis.set_minor_locator(NullLocator())


def pareto_chart(shapes: np.ndarray, limit: float) -> bytes:
    """Histogram over examples of Pareto k-hat, with the limit above which weights are not to be relied on."""
    with chart_style():
        figure = new_figure(2.9)
        axes = figure.subplots()
        usable = shapes[np.isfinite(shapes)]
        axes.hist(usable, bins=30, color=BLUE)
        axes.axvline(limit, color=GREY, ls="--", lw=1.2, label=f"not to be relied on above {limit:.2f}")
        axes.legend(fontsize=9.5)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="Pareto k-hat of an example's weights", ylabel="examples")
        return png(figure)
