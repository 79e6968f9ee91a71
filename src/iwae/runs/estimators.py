"""Estimators compared: a sweep over them, with the quality of their gradients on one of its models.

gradients.json                  bias, noise and time of every estimator's gradient
signal_to_noise.png, bias.png   pictures of them
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from iwae.errors import IWAEError
from iwae.estimators.objective import Objective
from iwae.evaluation.gradient_quality import seconds_per_gradient
from iwae.figures.charts import ladder_chart
from iwae.io.files import write_atomically, write_json
from iwae.io.json import Count, read_json
from iwae.runs.data import run_dataset
from iwae.runs.diagnose import bias_chart, gradient_record, measured_gradients, signal_to_noise_chart
from iwae.runs.directory import Run
from iwae.runs.grid import Definition, PointRecord
from iwae.runs.options import DiagnoseOptions
from iwae.runs.reporter import Reporter
from iwae.runs.sweep import Sweep

GRADIENTS = "gradients.json"
FORMAT = 1
FIGURES = (
    *(f"{group}_{name}" for group in ("encoder", "decoder") for name in ("bias", "bias_is_visible", "noise")),
    "seconds",
)


class GradientsRecord(TypedDict):
    """`gradients.json`: `gradients` are as in `diagnostics.json`, with `seconds` that one takes."""

    format: Count
    made_of: dict[str, Any]
    run: str
    examples: Count
    gradients: list[dict[str, Any]]


class Contest(Definition):
    """Estimators, as words such as iwae:dreg, each with every k and every seed; `options` hold for all. With k = 1
    those that compare samples are left out.
    """

    @classmethod
    def of(cls, words: Sequence[str], ks: Sequence[int], seeds: Sequence[int], options: Mapping[str, Any]) -> "Contest":
        """Raises IWAEError for no estimators, what is none, and what is given twice."""
        if not words:
            raise IWAEError("what is to be compared? give estimators such as iwae iwae:dreg elbo:stl")
        for name, values in {"estimators": words, "k": ks, "seeds": seeds}.items():
            if not values or len(set(values)) < len(values):
                raise IWAEError(f"`{name}` must be one or more that differ, got {','.join(map(str, values)) or 'none'}")
        return cls(options, {"estimator": tuple(words), "k": tuple(ks)}, tuple(seeds))

    def points(self) -> list[PointRecord]:
        """As of any definition; raises IWAEError too where nothing is left."""
        found = super().points()
        if not found:
            words = " and ".join(self.grid["estimator"])
            raise IWAEError(f"nothing to compare at k = 1, since {words} compare samples: give a larger `k`")
        return found

    def combinations(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Every estimator with every k that it has, and the objective that both are."""
        for word in self.grid["estimator"]:
            for k in self.grid["k"]:
                if k > 1 or not _compares_samples(word):
                    yield {"estimator": word, "k": k}, {"objective": Objective.parse(word, k)}


def _compares_samples(word: str) -> bool:
    objective = Objective.parse(word, 2)
    return max(objective.row.least_samples, objective.row.methods[objective.estimator].least_samples) > 1


def measure_gradients(
    sweep: Sweep, options: DiagnoseOptions, datasets_dir: Path | None, reporter: Reporter
) -> GradientsRecord | None:
    """Bias, noise and time of all estimators' gradients on one model: the first estimator's with the most samples, of
    the first seed. What is there of the same weights and options is kept. None while that run is not finished.

    Raises IWAEError where matplotlib is not installed, and OSError where a file can't be written.
    """
    runs = sweep.record["runs"]
    own = [run for run in runs if run["seed"] == runs[0]["seed"]]
    points = [(str(run["point"]["estimator"]), int(str(run["point"]["k"]))) for run in own]
    most = max(range(len(own)), key=lambda at: (points[at][0] == points[0][0], points[at][1]))
    run = Run(sweep.path / own[most]["run"])
    if not run.exists or run.results() is None:
        return None
    checkpoint = run.checkpoint()
    options = replace(options, reference_k=max(options.reference_k, *(k for _, k in points)))
    counts = {name: getattr(options, name) for name in ("draws", "examples", "seed", "reference_k")}
    made_of = {"weights_sha256": checkpoint.weights_digest(), "estimators": [list(p) for p in points], **counts}
    path = sweep.path / GRADIENTS
    with contextlib.suppress(OSError, IWAEError):
        found = read_json(path, GradientsRecord, "it is made anew", FORMAT)
        if found["made_of"] == made_of:
            return found
    words, objectives = [word for word, _ in points], [Objective.parse(*point) for point in points]
    data = run_dataset(run, datasets_dir, reporter)
    model, x, qualities = measured_gradients(checkpoint.model(), data, objectives, options, reporter)
    seconds = [seconds_per_gradient(model, x, objective, options.draws) for objective in objectives]
    write_atomically(sweep.path / "signal_to_noise.png", signal_to_noise_chart(words, qualities))
    write_atomically(sweep.path / "bias.png", bias_chart(words, qualities, options.reference_k))
    record: GradientsRecord = {
        "format": FORMAT,
        "made_of": made_of,
        "run": run.path.name,
        "examples": len(x),
        "gradients": [
            {**gradient_record(word, quality), "seconds": time}
            for word, quality, time in zip(words, qualities, seconds, strict=True)
        ],
    }
    write_json(path, record)
    return record


def compared(sweep: Sweep, gradients: GradientsRecord | None) -> list[dict[str, Any]]:
    """The sweep's table, a flat record for each estimator and k, with the figures of its gradient beside those over
    seeds: of `encoder` and `decoder` the `_bias` and whether it `_is_visible`, the `_noise`, and the `seconds` that one
    gradient takes.
    """
    found = {(one["estimator"], one["k"]): one for one in (gradients["gradients"] if gradients else [])}
    rows = []
    for row in sweep.table():
        one, figures = found.get((row["estimator"], row["k"])), dict.fromkeys(FIGURES)
        if one is not None:
            for group in ("encoder", "decoder"):
                bias = one[group]["bias"]
                figures[f"{group}_bias"] = bias["norm"] if bias["is_visible"] else bias["resolution"]
                figures[f"{group}_bias_is_visible"] = bias["is_visible"]
                variance = one[group]["variance"]
                figures[f"{group}_noise"] = None if variance is None else variance**0.5
            figures["seconds"] = one["seconds"]
        rows.append({**row, **figures})
    return rows


def draw_likelihoods(sweep: Sweep) -> bytes | None:
    """Test NLL over k of every estimator, as PNG; None where nothing is measured yet."""
    rows = sweep.table()
    ks = sorted({row["k"] for row in rows})
    lines = {
        word: [next((r["test_nll"] for r in rows if (r["estimator"], r["k"]) == (word, k)), None) for k in ks]
        for word in dict.fromkeys(row["estimator"] for row in rows)
    }
    values = {word: [math.nan if nll is None else nll for nll in nlls] for word, nlls in lines.items()}
    if all(math.isnan(nll) for nlls in values.values() for nll in nlls):
        return None
    return ladder_chart(ks, values, None)
