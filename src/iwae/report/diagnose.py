"""Diagnosing a run: how good gradient estimators are on it, and how even its importance weights."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from iwae.checkpoint import Checkpoint
from iwae.data import Dataset
from iwae.diagnostics import FEWEST_PARETO_SAMPLES, EstimatorQuality, GradientQuality, gradient_quality, pareto_k
from iwae.errors import IWAEError
from iwae.evaluation import binarized_batches
from iwae.files import write_atomically, write_json
from iwae.objectives import NEED_TWO_SAMPLES, Objective
from iwae.report import estimator_charts
from iwae.report.diagnostics import example_log_weights
from iwae.report.options import DiagnoseOptions
from iwae.runs.directory import RunDirectory
from iwae.runs.measure import device, finite_or_none, run_dataset, versions
from iwae.runs.reporter import Reporter

DIRECTORY = "diagnostics"
FILE = "diagnostics.json"
FORMAT = 1
GAUSSIAN = ("iwae", "iwae:stl", "iwae:dreg", "rws:rws-dreg")
BINARY = ("iwae:score", "vimco", "ovis:gamma=0", "rws")
# Above this an estimate from the weights can't be relied on (Vehtari et al. 2024).
UNRELIABLE = 0.7


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
    if options.weight_samples < FEWEST_PARETO_SAMPLES:
        raise IWAEError(f"--weight-samples must be at least {FEWEST_PARETO_SAMPLES}, got {options.weight_samples}")
    words, objectives = _objectives(options, loaded)
    data = run_dataset(run, datasets_dir, reporter, dataset)
    directory = run.path / DIRECTORY
    directory.mkdir(exist_ok=True)
    start = time.perf_counter()
    reporter.message(f"Drawing {options.draws} gradients of each of {len(objectives)} estimators.")
    found = _gradients(loaded, data, objectives, options, reporter)
    reporter.message("Measuring the importance weights.")
    log_weights = example_log_weights(
        loaded.model(),
        data,
        num_samples=options.weight_samples,
        num_examples=options.weight_examples,
        seed=options.seed,
    )
    shapes = pareto_k(log_weights)
    lines = estimator_charts.lines_of(words, found)
    pictures = {
        "signal_to_noise.png": estimator_charts.signal_to_noise_chart(lines),
        "bias.png": estimator_charts.bias_chart(lines),
        "pareto_k.png": estimator_charts.pareto_chart(shapes, UNRELIABLE),
    }
    for name, content in pictures.items():
        write_atomically(directory / name, content)
    record = {
        "format": FORMAT,
        "config": run.config().to_json(),
        "checkpoint": loaded.path.name,
        "step": loaded.step,
        "weights_sha256": loaded.weights_digest(),
        "options": asdict(options),
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


def _objectives(options: DiagnoseOptions, checkpoint: Checkpoint) -> tuple[list[str], list[Objective]]:
    """Each estimator's word and objective, k by k; those that compare samples are left out at k = 1."""
    binary = "bernoulli" in checkpoint.architecture.kinds
    chosen = [
        (word, Objective.parse(word, k))
        for word in options.estimators or (BINARY if binary else GAUSSIAN)
        for k in options.k
        if k > 1 or word.split(":")[0] not in NEED_TWO_SAMPLES
    ]
    if not chosen:
        raise IWAEError(f"{' '.join(options.estimators)} need --k of at least 2")
    for word, objective in chosen:
        if binary and objective.needs_gaussian_latents:
            raise IWAEError(
                f"{word} differentiates through samples, but this run's latents are binary: choose among"
                f" {', '.join(BINARY)}"
            )
    return [word for word, _ in chosen], [objective for _, objective in chosen]


def _gradients(
    checkpoint: Checkpoint,
    dataset: Dataset,
    objectives: Sequence[Objective],
    options: DiagnoseOptions,
    reporter: Reporter,
) -> list[EstimatorQuality]:
    model = checkpoint.model()
    x, _, count, _ = next(binarized_batches(model, dataset, "test", options.examples, options.examples))
    return gradient_quality(
        model,
        jnp.asarray(x[:count]),
        objectives,
        draws=options.draws,
        reference_k=options.reference_k,
        seed=options.seed,
        on_estimator=lambda done, total: reporter.measuring("gradients", done, total),
    )


def _gradient_record(word: str, quality: EstimatorQuality) -> dict[str, Any]:
    def group(found: GradientQuality) -> dict[str, float | None]:
        figures = {**asdict(found), "signal_to_noise": found.signal_to_noise}
        return {name: finite_or_none(value) for name, value in figures.items()}

    parameters = quality.objective.parameters()
    return {
        "estimator": word,
        **parameters,
        "encoder": group(quality.encoder),
        "decoder": group(quality.decoder),
    }


def _weights_record(log_weights: np.ndarray, shapes: np.ndarray, options: DiagnoseOptions) -> dict[str, Any]:
    usable = shapes[np.isfinite(shapes)]
    return {
        "num_samples": options.weight_samples,
        "examples": len(log_weights),
        "effective_sample_size": {
            str(k): finite_or_none(_mean_effective_sample_size(log_weights[:, :k]))
            for k in sorted({*options.k, options.weight_samples})
            if k <= options.weight_samples
        },
        "pareto_k": {
            "median": finite_or_none(float(np.median(usable)) if usable.size else float("nan")),
            "share_above_0.7": finite_or_none(float(np.mean(usable > UNRELIABLE)) if usable.size else float("nan")),
            "examples": int(usable.size),
        },
    }


def _mean_effective_sample_size(log_weights: np.ndarray) -> float:
    """Mean over examples of (sum w)^2 / sum w^2."""
    weights = np.exp(log_weights.astype(np.float64) - log_weights.max(axis=1, keepdims=True))
    return float(np.mean(weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1)))
