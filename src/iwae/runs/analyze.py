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
                         mean_effective_sample_size, delta, jvi2_nll, pareto_k_median, pareto_k_above, seed,
                         evaluation (the file with the measurement)
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

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iwae.data import Dataset, Split
from iwae.errors import check_count, needs_extra
from iwae.evaluation import importance_weights as weights
from iwae.evaluation import visualization
from iwae.evaluation.active_units import ACTIVE_THRESHOLD, active_units, paper_active_units
from iwae.evaluation.likelihood import MAX_SAMPLES
from iwae.figures.analysis import Findings, Images, draw
from iwae.figures.charts import Curve
from iwae.io.files import write_arrays, write_atomically, write_json
from iwae.io.json import finite_or_none
from iwae.models.vae import HierarchicalVAE
from iwae.runs.checkpoint import Checkpoint
from iwae.runs.data import run_dataset
from iwae.runs.directory import Run
from iwae.runs.evaluate import Measurement, kept_units, measure, overfitting_gap, provenance
from iwae.runs.options import MeasureOptions
from iwae.runs.records import AnalysisRecord, MetricsLine, StageRecord
from iwae.runs.reporter import Reporter

FORMAT = 2
DIRECTORY = "analysis"
FILE = "analysis.json"
ARRAYS = "analysis.npz"
DEFAULT_SAMPLES = 5000
LOG_WEIGHT_EXAMPLES = 100
# Enough for the distribution's tail; more would only make the file of arrays large.
LOG_WEIGHT_SAMPLES = 5000
# How many samples from the prior and weights of units are shown, and how many reconstructions.
GRID = 100
RECONSTRUCTIONS = 50
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
        check_count("samples", self.samples, most=MAX_SAMPLES, optional=True)
        check_count("examples", self.examples, optional=True)


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
    on, or matplotlib is not installed; OSError when a file can't be written.
    """
    needs_extra("matplotlib", "report")
    options, reporter = options or AnalyzeOptions(), reporter or Reporter()
    run = Run(path)
    record = run.record
    loaded = run.checkpoint(checkpoint)
    data = run_dataset(run, datasets_dir, reporter, dataset)
    run.create()
    directory = run.path / DIRECTORY
    directory.mkdir(exist_ok=True)
    start = time.perf_counter()
    test, train = _likelihoods(run, loaded, data, options, reporter)
    reporter.message("Counting active units, drawing pictures.")
    model = loaded.model()
    units, paper_units = active_units(model, data), paper_active_units(model, data)
    num_samples = min(test.likelihoods.num_samples, LOG_WEIGHT_SAMPLES)
    log_weights = weights.example_log_weights(
        model, data, num_samples=num_samples, num_examples=LOG_WEIGHT_EXAMPLES, kept=kept_units(run)
    )
    relative = weights.relative_log_weights(log_weights)
    metrics = run.metrics.lines(loaded.step)
    effective = test.likelihoods.effective_sample_size
    pictures, skipped = draw(
        Findings(
            curve=training_curve(run_name(run.path), metrics, record["schedule"]),
            variances=units.variances,
            threshold=ACTIVE_THRESHOLD,
            relative_log_weights=relative,
            effective_sample_size=effective,
            num_samples=test.likelihoods.num_samples,
            images=_images(model, data, units.variances[-1]),
        )
    )
    for name, content in pictures.items():
        write_atomically(directory / name, content)
    arrays: dict[str, Any] = {
        "relative_log_weights": relative.astype(np.float32),
        "log_likelihood": test.likelihoods.log_likelihood,
        "effective_sample_size": effective,
        **{f"variances_{number}": values for number, values in enumerate(units.variances, 1)},
    }
    write_arrays(directory / ARRAYS, np.savez_compressed, **arrays)
    found: Any = {
        "format": FORMAT,
        "config": run.config.to_json(),
        "architecture": loaded.architecture.to_json(),
        "stages_done": loaded.stages_done,
        "stages_total": len(record["schedule"]),
        "epochs": metrics[-1]["epoch"] if metrics else 0,
        "training_seconds": round(loaded.seconds, 1),
        "samples": options.samples,
        "examples": options.examples,
        "train_bound": metrics[-1]["bound"] if metrics else None,
        "test": test.to_json(),
        "train": train.to_json(),
        "gap": overfitting_gap(test.likelihoods, train.likelihoods),
        "active_threshold": ACTIVE_THRESHOLD,
        "layers": [
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
        ],
        "log_weights": {
            **_distribution(relative, relative.shape[-1]),
            "weight_above_mean": finite_or_none(weights.weight_above_mean(relative)),
        },
        "effective_sample_size": {
            **_distribution(effective, test.likelihoods.num_samples),
            "mean": finite_or_none(test.likelihoods.mean_effective_sample_size),
        },
        "pictures": {Path(name).stem: name for name in pictures},
        "skipped": skipped,
        "arrays": ARRAYS,
        **provenance(loaded, data, seconds=round(time.perf_counter() - start, 1)),
    }
    # Written last: where it is there, all that it names is.
    write_json(directory / FILE, found)
    return found


def run_name(path: Path) -> str:
    """The name of a run's directory, also for `.`."""
    return path.name or path.resolve().name


def training_curve(name: str, metrics: list[MetricsLine], schedule: list[StageRecord]) -> Curve | None:
    """The bound per epoch; None before the first epoch."""
    if not metrics:
        return None
    ends = [int(end) for end in np.cumsum([stage["epochs"] for stage in schedule])]
    return Curve(name, [line["epoch"] for line in metrics], [line["bound"] for line in metrics], ends)


def _images(model: HierarchicalVAE, data: Dataset, variances: np.ndarray) -> Images | None:
    """What is shown of a model of images, whose top layer's units have these variances."""
    if data.image_shape is None:
        return None
    originals, decoded = visualization.reconstructions(model, data, num_examples=RECONSTRUCTIONS)
    encoder_weights, decoder_weights = (
        None if found is None else visualization.by_norm(found, GRID)
        for found in (visualization.first_encoder_weights(model), visualization.last_decoder_weights(model))
    )
    units, values = visualization.traversed_units(variances), visualization.traversed_values(model)
    return Images(
        shape=data.image_shape,
        samples=visualization.samples(model, GRID),
        originals=originals,
        reconstructions=decoded,
        traversals=visualization.traverse(model, units, values),
        units=units,
        values=values,
        encoder_weights=encoder_weights,
        decoder_weights=decoder_weights,
    )


def _likelihoods(
    run: Run, checkpoint: Checkpoint, dataset: Dataset, options: AnalyzeOptions, reporter: Reporter
) -> tuple[Measurement, Measurement]:
    """Test and training likelihoods: of as many test examples as asked for, or as the finished run's own measurement
    had; and of as many training examples, as far as there are.
    """
    samples, examples = options.samples or DEFAULT_SAMPLES, options.examples
    if examples is None:
        results = run.results()
        examples = results["test"]["num_examples"] if results else MeasureOptions().examples_for(run.config)
    examples = min(len(dataset.test), examples or len(dataset.test))
    counts: dict[Split, int] = {"test": examples, "train": min(examples, len(dataset.train))}
    measurements = []
    for split, count in counts.items():
        made = measure(run, checkpoint, dataset, split, samples=samples, examples=count, reporter=reporter)
        if made.reused:
            reporter.message(f"Using the {split} likelihood in {made.path}.")
        measurements.append(made)
    return measurements[0], measurements[1]


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
