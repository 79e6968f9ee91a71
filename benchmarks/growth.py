"""How the cost of a training step grows, one size at a time: writes the tables and the picture of docs/dev/growth.md.

    python -m benchmarks.growth    # about ten minutes; --axes k layers for some

Every point is measured in a process of its own, since the peak of memory is a process's.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.footprint import peak_mib
from benchmarks.tables import replace_between, table
from benchmarks.worker import Worker
from iwae.io.text import counted

BASE = {"k": 5, "batch": 20, "dimensions": 784, "rows": 10_000, "layers": 1}
AXES = {
    "k": (1, 5, 50, 500, 5000),
    "batch": (20, 63, 200, 632, 2000),
    "dimensions": (784, 2000, 6000, 20_000),
    "rows": (10**4, 10**5, 10**6, 10**7),
    "layers": (1, 2, 3, 4, 5),
}
# Ten million rows of 784 dimensions would not fit.
NARROW = {"rows": {"dimensions": 100}}
FIGURES = {"milliseconds": "milliseconds a step", "mib": "MiB above the process itself"}
LATENT, HIDDEN = 50, 200
ROUNDS, SECONDS_A_ROUND = 5, 0.5


def point(sizes: dict[str, int]) -> dict[str, float]:
    """Milliseconds of a step, the median of some rounds, and the peak of memory above that of the process with its
    data before anything is compiled, in MiB. For a process of its own.
    """
    import jax
    import jax.numpy as jnp

    from benchmarks.ours import trainer_of
    from benchmarks.setting import example_values
    from iwae.models.architecture import Architecture
    from iwae.models.likelihoods import BernoulliLikelihood
    from iwae.models.vae import HierarchicalVAE

    values, layers = example_values(sizes["rows"], sizes["dimensions"]), sizes["layers"]
    architecture = Architecture(sizes["dimensions"], (LATENT,) * layers, ((HIDDEN, HIDDEN),) * layers)
    model = HierarchicalVAE.create(architecture, jax.random.key(0), BernoulliLikelihood(1 / 255))
    jax.block_until_ready(jnp.zeros(1) + 1)
    before = peak_mib()
    run = trainer_of(model, values, sizes["k"], batch_size=sizes["batch"])
    seconds = [_timed(run, 1), _timed(run, 1)]
    steps = max(1, round(SECONDS_A_ROUND / seconds[1]))
    seconds = [_timed(run, steps) / steps for _ in range(ROUNDS)]
    return {"milliseconds": 1e3 * statistics.median(seconds), "mib": peak_mib() - before}


def _timed(run: Any, steps: int) -> float:
    start = time.perf_counter()
    run(steps)
    return time.perf_counter() - start


def measure(axis: str, values: Sequence[int]) -> list[dict[str, float]]:
    """The points of one axis, the other sizes being those of `BASE`."""
    found = []
    for value in values:
        with Worker() as process:
            sizes = {**BASE, **NARROW.get(axis, {}), axis: value}
            found.append({axis: value, **process.call("benchmarks.growth.point", sizes)})
        print(json.dumps(found[-1]), flush=True)
    return found


def exponents(axis: str, points: Sequence[dict[str, float]], figure: str) -> list[float]:
    """Between each point and the next: the power of the size with which a figure grows there."""
    logs = [(math.log(one[axis]), math.log(max(one[figure], 1e-9))) for one in points]
    return [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(logs)]


def fitted(axis: str, points: Sequence[dict[str, float]], figure: str) -> float:
    """The power of the size that fits all points best, by least squares of logarithms."""
    x, y = (np.log([max(one[name], 1e-9) for one in points]) for name in (axis, figure))
    return float(np.polyfit(x, y, 1)[0])


def render(found: dict[str, list[dict[str, float]]]) -> str:
    """A table for every axis."""
    parts = []
    for axis, points in found.items():
        fits = [f"{fitted(axis, points, figure):.2f}" for figure in ("milliseconds", "mib")]
        local = [
            ["", *(f"{power:.2f}" for power in exponents(axis, points, figure))] for figure in ("milliseconds", "mib")
        ]
        rows = [
            [f"{one[axis]:,.0f}", f"{one['milliseconds']:.2f}", time_power, f"{one['mib']:,.0f}", memory_power]
            for one, time_power, memory_power in zip(points, *local, strict=True)
        ]
        headings = [axis, "ms a step", "power", "MiB", "power"]
        parts += [table(headings, [*rows, ["all points", "", fits[0], "", fits[1]]])]
    return "\n\n".join(parts) + "\n"


def draw(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Time and memory over every size, in logarithmic scales."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, (name, label) in zip(
        figure.subplots(1, 2),
        (("milliseconds", "milliseconds a step"), ("mib", "MiB above the process itself")),
        strict=True,
    ):
        for axis, points in found.items():
            smallest = points[0][axis]
            axes.loglog([one[axis] / smallest for one in points], [one[name] for one in points], "o-", label=axis)
        axes.set(xlabel="times the smallest size", ylabel=label)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures the axes that are asked for and writes the page's tables and picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--axes", nargs="*", default=list(AXES), choices=list(AXES), help="sizes to grow")
    parser.add_argument("--output", type=Path, default=Path("results/growth.json"), help="where the figures go")
    parser.add_argument("--docs", type=Path, default=Path("docs/dev/growth.md"), help="whose tables are written anew")
    chosen = parser.parse_args()
    found = json.loads(chosen.output.read_text()) if chosen.output.exists() else {}
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    for axis in chosen.axes:
        found[axis] = measure(axis, AXES[axis])
        chosen.output.write_text(json.dumps(found, indent=1) + "\n")
    found = {axis: found[axis] for axis in AXES if axis in found}
    note = f"{counted(len(os.sched_getaffinity(0)), 'core')}.\n\n"
    replace_between(chosen.docs, "growth", note + render(found))
    draw(found, chosen.docs.parent.parent / "images" / "growth.png")


if __name__ == "__main__":
    main()
