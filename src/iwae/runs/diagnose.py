"""Diagnosing a run: how good gradient estimators are on it, and how even its importance weights."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from iwae.data import Dataset
from iwae.errors import IWAEError, check_count, needs_extra
from iwae.estimators.base import Estimator
from iwae.estimators.objective import Objective
from iwae.estimators.table import OBJECTIVES
from iwae.evaluation import importance_weights as weights
from iwae.evaluation.batches import on_data, prepared_batches
from iwae.evaluation.gradient_quality import (
    GROUPS,
    EstimatorQuality,
    Gap,
    GradientQuality,
    check_counts,
    gradient_quality,
)
from iwae.figures import charts
from iwae.io.files import write_atomically, write_json
from iwae.io.json import finite_or_none
from iwae.models.vae import HierarchicalVAE
from iwae.runs.checkpoint import Checkpoint
from iwae.runs.data import run_dataset
from iwae.runs.directory import Run
from iwae.runs.evaluate import device, versions
from iwae.runs.options import DiagnoseOptions
from iwae.runs.reporter import Reporter

DIRECTORY = "diagnostics"
FILE = "diagnostics.json"
FORMAT = 1
GAUSSIAN = ("iwae", "iwae:stl", "iwae:dreg", "rws:rws-dreg")
BINARY = ("iwae:score", "vimco", "ovis:gamma=0", "rws")


def diagnose_run(
    path: str | Path,
    *,
    options: DiagnoseOptions | None = None,
    checkpoint: int | None = None,
    dataset: Path | None = None,
    datasets_dir: Path | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Diagnoses a run's newest checkpoint (or the one after `checkpoint` stages), writes figures and
    `diagnostics/diagnostics.json` into it and returns the latter's content. `dataset` is where one's own data is now.

    Raises IWAEError, in one line, where there is no run, no such checkpoint, other data than it was trained on, an
    estimator that has no meaning for it, or matplotlib is not installed; OSError when a file can't be written.
    """
    needs_extra("matplotlib", "report")
    options, reporter = options or DiagnoseOptions(), reporter or Reporter()
    run = Run.open(path)
    loaded = run.checkpoint(checkpoint)
    check_count("weight_samples", options.weight_samples, weights.FEWEST_PARETO_SAMPLES)
    words, objectives, left_out = _objectives(options, loaded)
    targets = [given if isinstance(given, Objective) else given[1] for given in objectives]
    check_counts(targets, options.draws, options.reference_k)
    for word in left_out:
        reporter.message(f"{word} compares samples: it is left out at k = 1.")
    data = run_dataset(run, datasets_dir, reporter, dataset)
    directory = run.path / DIRECTORY
    directory.mkdir(exist_ok=True)
    start = time.perf_counter()
    model, x, found = measured_gradients(loaded.model(), data, objectives, options, reporter)
    reporter.message("Measuring the importance weights.")
    log_weights = weights.example_log_weights(
        model, data, num_samples=options.weight_samples, num_examples=options.weight_examples, seed=options.seed
    )
    shapes = weights.pareto_k(log_weights)
    pictures = {
        "signal_to_noise.png": signal_to_noise_chart(words, found),
        "bias.png": bias_chart(words, found, options.reference_k),
        "pareto_k.png": charts.pareto_chart(shapes, weights.pareto_limit(options.weight_samples)),
    }
    for name, content in pictures.items():
        write_atomically(directory / name, content)
    record = {
        "format": FORMAT,
        "config": run.config.to_json(),
        "checkpoint": loaded.path.name,
        "step": loaded.step,
        "weights_sha256": loaded.weights_digest(),
        "options": asdict(options),
        "gradient_examples": len(x),
        "gradients": [gradient_record(word, quality) for word, quality in zip(words, found, strict=True)],
        "weights": _weights_record(log_weights, shapes, options),
        "pictures": list(pictures),
        "seconds": round(time.perf_counter() - start, 1),
        "versions": versions(),
        "device": device(),
    }
    # Written last: where it is there, all that it names is.
    write_json(directory / FILE, record)
    return record


def measured_gradients(
    model: HierarchicalVAE,
    data: Dataset,
    objectives: Sequence[Objective | tuple[Estimator, Objective]],
    options: DiagnoseOptions,
    reporter: Reporter,
) -> tuple[HierarchicalVAE, Float[Array, "examples visible"], list[EstimatorQuality]]:
    """The model for the data, the first test examples as they are scored, and the quality of each estimator's gradient
    on them.
    """
    reporter.message(f"Drawing {options.draws} gradients of each of {len(objectives)} estimators.")
    model, rows = on_data(model, data, "test")
    x, _, count, _ = next(prepared_batches(model, rows, "test", options.examples, options.examples))
    found = gradient_quality(
        model,
        x[:count],
        objectives,
        draws=options.draws,
        reference_k=options.reference_k,
        seed=options.seed,
        on_estimator=lambda done, total: reporter.measuring("gradients", done, total),
    )
    return model, x[:count], found


def _objectives(
    options: DiagnoseOptions, checkpoint: Checkpoint
) -> tuple[list[str], list[Objective | tuple[Estimator, Objective]], list[str]]:
    """Each estimator's word and what `gradient_quality` takes, k by k, once; and those that are left out at k = 1,
    since they compare samples.
    """
    binary = "bernoulli" in checkpoint.architecture.kinds
    words = dict.fromkeys(options.estimators or (BINARY if binary else GAUSSIAN))
    left_out = [word for word in words if 1 in options.k and _compares_samples(_parsed(word, 2))]
    chosen = [
        (word, _parsed(word, k)) for word in words for k in dict.fromkeys(options.k) if k > 1 or word not in left_out
    ]
    if not chosen:
        raise IWAEError(f"nothing to diagnose at k = 1, since {' and '.join(words)} compare samples: give a larger `k`")
    for word, objective in chosen:
        if not isinstance(objective, Objective):
            continue
        if binary and objective.needs_gaussian_latents:
            raise IWAEError(
                f"{word} differentiates through samples, but this run's latents are binary: choose among"
                f" {', '.join(BINARY)}"
            )
        objective.check_latents(checkpoint.architecture.kinds)
    return [word for word, _ in chosen], [objective for _, objective in chosen], left_out


def _parsed(word: str, k: int) -> Objective | tuple[Estimator, Objective]:
    """An objective; or of `module:Class`, `module:Class:objective` a custom estimator, made with its number of samples,
    and the objective that it is held against, by default L_k.

    Raises IWAEError for words that have no meaning.
    """
    module, _, rest = word.partition(":")
    if module in OBJECTIVES or not rest:
        return Objective.parse(word, k)
    name, _, target = rest.partition(":")
    objective = Objective.parse(target or "iwae", k)
    try:
        estimator = getattr(import_module(module), name)(objective.num_samples)
        if not isinstance(estimator, Estimator):
            raise TypeError(f"got {type(estimator).__name__}")
    except (ImportError, AttributeError, TypeError) as error:
        raise IWAEError(
            f"{word!r}: expected a known objective, or a module and what in it makes an iwae.Estimator of a number of"
            f" samples ({error})"
        ) from error
    return estimator, objective


def _compares_samples(objective: Objective | tuple[Estimator, Objective]) -> bool:
    """Whether one sample alone gives it nothing; wake-sleep without wake-phi is the exception to its row."""
    if not isinstance(objective, Objective):
        return False
    return objective.row.least_samples > 1 and objective.parameters.get("sleep") != 1.0


def signal_to_noise_chart(words: Sequence[str], found: Sequence[EstimatorQuality]) -> bytes:
    """The gradients' signal-to-noise ratios over k as PNG, encoder above decoder; `words` are the estimators' names."""

    def lines(group: str) -> list[charts.Line]:
        def point(quality: EstimatorQuality) -> tuple[float, bool]:
            gradient: GradientQuality = getattr(quality, group)
            # A signal that the number of draws can't tell from zero has no place on a logarithmic axis.
            return (gradient.signal_to_noise if gradient.mean_norm > 0 else float("nan")), True

        return _lines(words, found, point)

    panels = {group: ("signal-to-noise ratio", lines(group)) for group in GROUPS}
    return charts.estimator_chart(panels, slope=("1/√k", -0.5))


def bias_chart(words: Sequence[str], found: Sequence[EstimatorQuality], reference_k: int) -> bytes:
    """Over k as PNG: of the encoder the bias at that k, of the decoder the distance from the gradient at
    `reference_k`; where they can't be told from zero, a mark at what could have been seen.
    """

    def point(gap: Gap) -> tuple[float, bool]:
        return max(gap.norm, gap.resolution), gap.is_visible

    biases = _lines(words, found, lambda quality: point(quality.encoder.bias))
    distances = _lines(words, found, lambda quality: point(quality.decoder.to_large_k))
    panels = {"encoder": ("bias at this k", biases), "decoder": (f"distance from k = {reference_k}", distances)}
    return charts.estimator_chart(panels)


def _lines(
    words: Sequence[str], found: Sequence[EstimatorQuality], point: Callable[[EstimatorQuality], tuple[float, bool]]
) -> list[charts.Line]:
    """A line for each word; `point` gives a value, and whether it is more than noise allows."""
    lines = []
    for name in dict.fromkeys(words):
        own = sorted((q for n, q in zip(words, found, strict=True) if n == name), key=lambda q: q.objective.k)
        values, visible = zip(*map(point, own), strict=True)
        lines.append(charts.Line(name, [quality.objective.k for quality in own], values, visible))
    return lines


def gradient_record(word: str, quality: EstimatorQuality) -> dict[str, Any]:
    """A quality as JSON's plain values; `word` is the estimator's name."""

    def gap(found: Gap) -> dict[str, Any]:
        norm, resolution = finite_or_none(found.norm), finite_or_none(found.resolution)
        return {"norm": norm, "resolution": resolution, "is_visible": found.is_visible}

    def group(found: GradientQuality) -> dict[str, Any]:
        names = ("mean_norm", "variance", "signal_to_noise")
        numbers = {name: finite_or_none(getattr(found, name)) for name in names}
        return {**numbers, "bias": gap(found.bias), "to_large_k": gap(found.to_large_k)}

    groups = {name: group(getattr(quality, name)) for name in GROUPS}
    return {"estimator": word, **quality.objective.numbers(), **groups}


def _weights_record(log_weights: np.ndarray, shapes: np.ndarray, options: DiagnoseOptions) -> dict[str, Any]:
    limit = weights.pareto_limit(options.weight_samples)
    median, above = map(finite_or_none, weights.shape_figures(shapes, limit))
    counts = sorted({*options.k, options.weight_samples})
    return {
        "num_samples": options.weight_samples,
        "examples": len(log_weights),
        "effective_sample_size": {
            str(k): finite_or_none(weights.mean_effective_sample_size(log_weights[:, :k]))
            for k in counts
            if k <= options.weight_samples
        },
        "pareto_k": {
            "median": median,
            "limit": limit,
            "share_above_limit": above,
            "examples": int(np.sum(~np.isnan(shapes))),
        },
    }
