"""Diagnosing a run: how good gradient estimators are on it, and how even its importance weights."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from iwae.errors import IWAEError, check_count
from iwae.estimators.objective import Objective
from iwae.evaluation.gradient_quality import (
    FEWEST_PARETO_SAMPLES,
    EstimatorQuality,
    Gap,
    GradientQuality,
    check_counts,
    gradient_quality,
    mean_effective_sample_size,
    pareto_k,
    pareto_limit,
)
from iwae.evaluation.importance_weights import example_log_weights
from iwae.evaluation.likelihood import binarized_batches
from iwae.figures import estimator_charts
from iwae.io.files import write_atomically, write_json
from iwae.report.options import DiagnoseOptions
from iwae.runs.checkpoint import Checkpoint
from iwae.runs.directory import RunDirectory
from iwae.runs.evaluate import device, finite_or_none, run_dataset, versions
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

    Raises IWAEError, in one line, where there is no run, no such checkpoint, other data than it was trained on, or
    an estimator that has no meaning for it; OSError when a file can't be written.
    """
    options, reporter = options or DiagnoseOptions(), reporter or Reporter()
    run = RunDirectory(path)
    run.read_record()
    loaded = run.newest_checkpoint() if checkpoint is None else run.load_checkpoint(checkpoint)
    check_count("--weight-samples", options.weight_samples, FEWEST_PARETO_SAMPLES)
    words, objectives, left_out = _objectives(options, loaded)
    check_counts(objectives, options.draws, options.reference_k)
    for word in left_out:
        reporter.message(f"{word} compares samples: it is left out at k = 1.")
    data = run_dataset(run, datasets_dir, reporter, dataset)
    directory = run.path / DIRECTORY
    directory.mkdir(exist_ok=True)
    start = time.perf_counter()
    reporter.message(f"Drawing {options.draws} gradients of each of {len(objectives)} estimators.")
    model = loaded.model()
    x, _, count, _ = next(binarized_batches(model, data, "test", options.examples, options.examples))
    found = gradient_quality(
        model,
        jnp.asarray(x[:count]),
        objectives,
        draws=options.draws,
        reference_k=options.reference_k,
        seed=options.seed,
        on_estimator=lambda done, total: reporter.measuring("gradients", done, total),
    )
    reporter.message("Measuring the importance weights.")
    log_weights = example_log_weights(
        model,
        data,
        num_samples=options.weight_samples,
        num_examples=options.weight_examples,
        seed=options.seed,
    )
    shapes = pareto_k(log_weights)
    lines = estimator_charts.lines_of(words, found)
    pictures = {
        "signal_to_noise.png": estimator_charts.signal_to_noise_chart(lines),
        "bias.png": estimator_charts.bias_chart(lines, options.reference_k),
        "pareto_k.png": estimator_charts.pareto_chart(shapes, pareto_limit(options.weight_samples)),
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
        "gradient_examples": count,
        "gradients": [_gradient_record(word, quality) for word, quality in zip(words, found, strict=True)],
        "weights": _weights_record(log_weights, shapes, options),
        "pictures": list(pictures),
        "seconds": round(time.perf_counter() - start, 1),
        "versions": versions(),
        "device": device(),
    }
    # Written last: where it is there, all that it names is.
    write_json(directory / FILE, record)
    return record


def _objectives(options: DiagnoseOptions, checkpoint: Checkpoint) -> tuple[list[str], list[Objective], list[str]]:
    """Each estimator's word and objective, k by k, once; and those that are left out at k = 1, since they compare
    samples.
    """
    binary = "bernoulli" in checkpoint.architecture.kinds
    words = dict.fromkeys(options.estimators or (BINARY if binary else GAUSSIAN))
    left_out = [word for word in words if 1 in options.k and Objective.parse(word, 2).compares_samples]
    chosen = [
        (word, Objective.parse(word, k))
        for word in words
        for k in dict.fromkeys(options.k)
        if k > 1 or word not in left_out
    ]
    if not chosen:
        raise IWAEError(f"nothing to diagnose at k = 1, since {' and '.join(words)} compare samples: give a larger --k")
    for word, objective in chosen:
        if binary and objective.needs_gaussian_latents:
            raise IWAEError(
                f"{word} differentiates through samples, but this run's latents are binary: choose among"
                f" {', '.join(BINARY)}"
            )
    return [word for word, _ in chosen], [objective for _, objective in chosen], left_out


def _gradient_record(word: str, quality: EstimatorQuality) -> dict[str, Any]:
    def gap(found: Gap) -> dict[str, Any]:
        return {
            "norm": finite_or_none(found.norm),
            "resolution": finite_or_none(found.resolution),
            "is_visible": found.is_visible,
        }

    def group(found: GradientQuality) -> dict[str, Any]:
        return {
            "mean_norm": finite_or_none(found.mean_norm),
            "variance": finite_or_none(found.variance),
            "signal_to_noise": finite_or_none(found.signal_to_noise),
            "bias": gap(found.bias),
            "to_large_k": gap(found.to_large_k),
        }

    parameters = quality.objective.parameters()
    return {
        "estimator": word,
        **parameters,
        "encoder": group(quality.encoder),
        "decoder": group(quality.decoder),
    }


def _weights_record(log_weights: np.ndarray, shapes: np.ndarray, options: DiagnoseOptions) -> dict[str, Any]:
    usable, limit = shapes[np.isfinite(shapes)], pareto_limit(options.weight_samples)
    return {
        "num_samples": options.weight_samples,
        "examples": len(log_weights),
        "effective_sample_size": {
            str(k): finite_or_none(mean_effective_sample_size(log_weights[:, :k]))
            for k in sorted({*options.k, options.weight_samples})
            if k <= options.weight_samples
        },
        "pareto_k": {
            "median": finite_or_none(float(np.median(usable)) if usable.size else float("nan")),
            "limit": limit,
            "share_above_limit": finite_or_none(float(np.mean(usable > limit)) if usable.size else float("nan")),
            "examples": int(usable.size),
        },
    }
