"""Analysis of a trained run: numbers to `analysis/analysis.json`, arrays to `analysis.npz`, pictures as PNG.

analysis.json:
  format                 2
  config, data           the run's configuration; its data: name, mark, sizes, checksums
  architecture           units of every layer
  checkpoint             file name; with `stages_done`, `stages_total`, `epochs`, `step`, `weights_sha256`,
                         `training_seconds`
  samples, examples      what was asked for; null: the default
  train_bound            mean training bound of the last epoch (nats per example)
  test, train            nll and stderr (nats), num_samples, num_examples, split_examples,
                         mean_effective_sample_size, seed, evaluation (the file with the measurement)
  gap                    value (test NLL - training NLL) and stderr, in nats
  active_threshold       0.01
  layers                 one object per stochastic layer, h_1 first: units, active, active_paper_code (counted on 500
                         images with one sample), variances (of each unit's posterior mean over the training data)
  log_weights            examples, num_samples, quantiles of log w - log mean w over all of them (nats);
                         weight_above_mean: the share of the weight that samples of more than average weight carry
  effective_sample_size  examples, num_samples, mean, quantiles
  pictures, skipped      file names by kind; why a kind is missing
  arrays                 name of the .npz: relative_log_weights [examples, k], effective_sample_size and
                         log_likelihood of the test examples, variances_<layer>
  seconds, versions, device
A number that does not exist (the standard error of one example, a likelihood of zero) is null.
"""

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iwae.data import Dataset, Split
from iwae.errors import IWAEError, check_count
from iwae.evaluation import importance_weights
from iwae.evaluation.likelihood import ACTIVE_THRESHOLD, MAX_SAMPLES, ActiveUnits, active_units, paper_active_units
from iwae.figures.analysis import Findings, draw
from iwae.io.files import write_atomically, write_json
from iwae.runs.checkpoint import Checkpoint
from iwae.runs.config import MeasureOptions, RunConfig
from iwae.runs.directory import RunDirectory
from iwae.runs.evaluate import (
    Measurement,
    data_record,
    device,
    finite_or_none,
    kept_units,
    measure,
    overfitting_gap,
    run_dataset,
    versions,
)
from iwae.runs.records import AnalysisRecord, LayerRecord
from iwae.runs.reporter import Reporter

FORMAT = 2
DIRECTORY = "analysis"
FILE = "analysis.json"
ARRAYS = "analysis.npz"
DEFAULT_SAMPLES = 5000
LOG_WEIGHT_EXAMPLES = 100
# Enough for the distribution's tail; more would only make the file of arrays large.
LOG_WEIGHT_SAMPLES = 5000
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class AnalyzeOptions:
    """How thoroughly to analyze.

    `samples` is k of the likelihoods (default: 5000). `examples` is how many examples of the test set, and as
    many of the training set, are measured (default: as many as the run's own test measurement had).
    """

    samples: int | None = None
    examples: int | None = None

    def __post_init__(self) -> None:
        """Raises IWAEError for counts below one, or more samples than can be drawn."""
        if self.samples is not None:
            check_count("--samples", self.samples)
            if self.samples > MAX_SAMPLES:
                raise IWAEError(f"--samples must be at most {MAX_SAMPLES:,}, got {self.samples}")
        if self.examples is not None:
            check_count("--examples", self.examples)


def analyze_run(
    path: str | Path,
    *,
    options: AnalyzeOptions | None = None,
    checkpoint: int | None = None,
    dataset: Path | None = None,
    datasets_dir: Path | None = None,
    reporter: Reporter | None = None,
) -> AnalysisRecord:
    """Analyzes a run's newest checkpoint (or the one after `checkpoint` stages) and returns `analysis.json`.

    Likelihoods that were already measured with the same weights, k and examples are not measured again. `dataset`
    is where one's own data is now, if it has moved since training.

    Raises IWAEError, in one line, where there is no run, no such checkpoint, or other data than it was trained
    on; OSError when a file can't be written.
    """
    options, reporter = options or AnalyzeOptions(), reporter or Reporter()
    run = RunDirectory(path)
    run.read_record()
    loaded = run.newest_checkpoint() if checkpoint is None else run.load_checkpoint(checkpoint)
    data = run_dataset(run, datasets_dir, reporter, dataset)
    run.create()
    directory = run.path / DIRECTORY
    directory.mkdir(exist_ok=True)
    start = time.perf_counter()
    test, train = _likelihoods(run, loaded, data, options, reporter)
    reporter.message("Counting active units, drawing pictures.")
    model = loaded.model()
    units, paper_units = active_units(model, data), paper_active_units(model, data)
    findings = Findings(
        model=model,
        dataset=data,
        variances=units.variances,
        relative_log_weights=importance_weights.relative_log_weights(
            importance_weights.example_log_weights(
                model,
                data,
                num_samples=min(test.likelihoods.num_samples, LOG_WEIGHT_SAMPLES),
                num_examples=LOG_WEIGHT_EXAMPLES,
                kept=kept_units(run),
            )
        ),
        likelihoods=test.likelihoods,
        metrics=[line for line in run.read_metrics() if line["step"] <= loaded.step],
        schedule=run.read_record()["schedule"],
        name=run_name(run.path),
    )
    pictures, skipped = draw(findings)
    for name, content in pictures.items():
        write_atomically(directory / name, content)
    _write_arrays(directory / ARRAYS, findings)
    record: Any = {
        **_provenance(run, loaded, data, options),
        "train_bound": findings.metrics[-1]["bound"] if findings.metrics else None,
        "test": test.to_json(),
        "train": train.to_json(),
        "gap": overfitting_gap(test.likelihoods, train.likelihoods),
        "active_threshold": ACTIVE_THRESHOLD,
        "layers": _layers(units, paper_units),
        "log_weights": {
            **_distribution(findings.relative_log_weights, findings.relative_log_weights.shape[-1]),
            "weight_above_mean": finite_or_none(importance_weights.weight_above_mean(findings.relative_log_weights)),
        },
        "effective_sample_size": {
            **_distribution(test.likelihoods.effective_sample_size, test.likelihoods.num_samples),
            "mean": finite_or_none(test.likelihoods.mean_effective_sample_size),
        },
        "pictures": {Path(name).stem: name for name in pictures},
        "skipped": skipped,
        "arrays": ARRAYS,
        "seconds": round(time.perf_counter() - start, 1),
        "versions": versions(),
        "device": device(),
    }
    # Written last: where it is there, all that it names is.
    write_json(directory / FILE, record)
    return record


def run_name(path: Path) -> str:
    """The name of a run's directory, also for `.`."""
    return path.name or path.resolve().name


def examples_to_measure(run: RunDirectory, options: AnalyzeOptions, dataset: Dataset) -> int:
    """How many test examples to measure: as asked for, or as many as the finished run's own measurement had."""
    wanted = options.examples
    if wanted is None:
        results = run.results()
        wanted = results["test"]["num_examples"] if results else MeasureOptions().examples_for(run.config)
    return len(dataset.test) if wanted is None else min(wanted, len(dataset.test))


def _likelihoods(
    run: RunDirectory, checkpoint: Checkpoint, dataset: Dataset, options: AnalyzeOptions, reporter: Reporter
) -> tuple[Measurement, Measurement]:
    """Test and training likelihoods, of as many examples each as far as the training set has them."""
    samples, examples = options.samples or DEFAULT_SAMPLES, examples_to_measure(run, options, dataset)
    counts: dict[Split, int] = {"test": examples, "train": min(examples, len(dataset.train))}
    measurements = []
    for split, count in counts.items():
        made = measure(run, checkpoint, dataset, split, samples=samples, examples=count, reporter=reporter)
        if made.reused:
            reporter.message(f"Using the {split} likelihood in {made.path}.")
        measurements.append(made)
    return measurements[0], measurements[1]


def _provenance(run: RunDirectory, checkpoint: Checkpoint, dataset: Dataset, options: AnalyzeOptions) -> dict[str, Any]:
    config: RunConfig = run.config
    metrics = [line for line in run.read_metrics() if line["step"] <= checkpoint.step]
    return {
        "format": FORMAT,
        "config": config.to_json(),
        "data": data_record(dataset),
        "architecture": checkpoint.architecture.to_json(),
        "checkpoint": checkpoint.path.name,
        "stages_done": checkpoint.stages_done,
        "stages_total": len(run.read_record()["schedule"]),
        "epochs": metrics[-1]["epoch"] if metrics else 0,
        "step": checkpoint.step,
        "weights_sha256": checkpoint.weights_digest(),
        "training_seconds": round(checkpoint.seconds, 1),
        "samples": options.samples,
        "examples": options.examples,
    }


def _layers(units: ActiveUnits, paper_units: ActiveUnits) -> list[LayerRecord]:
    return [
        {
            "layer": number,
            "units": len(variances),
            "active": active,
            "active_paper_code": paper_active,
            "variances": [finite_or_none(float(value)) for value in variances],
        }
        for number, (variances, active, paper_active) in enumerate(
            zip(units.variances, units.counts, paper_units.counts, strict=True), 1
        )
    ]


def _distribution(values: np.ndarray, num_samples: int) -> dict[str, Any]:
    """Quantiles of the finite values, by their level as text; null where there are none."""
    finite = values[np.isfinite(values)]
    quantiles = np.quantile(finite, QUANTILES) if finite.size else [float("nan")] * len(QUANTILES)
    return {
        "examples": len(values),
        "num_samples": num_samples,
        "quantiles": {
            f"{level:g}": finite_or_none(float(value)) for level, value in zip(QUANTILES, quantiles, strict=True)
        },
    }


def _write_arrays(path: Path, findings: Findings) -> None:
    arrays: dict[str, Any] = {
        "relative_log_weights": findings.relative_log_weights.astype(np.float32),
        "log_likelihood": findings.likelihoods.log_likelihood,
        "effective_sample_size": findings.likelihoods.effective_sample_size,
        **{f"variances_{number}": values for number, values in enumerate(findings.variances, 1)},
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())
