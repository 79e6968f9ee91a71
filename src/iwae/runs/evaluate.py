"""Measuring a run's checkpoint and recording what came out."""

import io
import itertools
import math
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from iwae.data import Dataset, Split, load_dataset
from iwae.errors import IWAEError, check_count
from iwae.evaluation import likelihood as evaluation
from iwae.evaluation.active_units import active_units, paper_active_units
from iwae.figures.grids import sample_grid
from iwae.io.files import check_writable, write_atomically, write_json
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key
from iwae.runs.checkpoint import Checkpoint
from iwae.runs.config import MeasureOptions, check_seed
from iwae.runs.directory import RunDirectory
from iwae.runs.records import DataRecord, EvaluationRecord, Measured, ResultsRecord
from iwae.runs.reporter import Reporter
from iwae.version import __version__

NUM_GRID_SAMPLES = 100


def data_record(dataset: Dataset) -> DataRecord:
    """What a run's record says of its data: name, mark, sizes and checksums."""
    return {
        "name": dataset.name,
        "mark": dataset.mark,
        "examples": {"train": len(dataset.train), "valid": len(dataset.valid), "test": len(dataset.test)},
        "dim": dataset.dim,
        "binary": dataset.binary,
        "image_shape": list(dataset.image_shape) if dataset.image_shape else None,
        "files": [{"name": f.name, "checksum": f.checksum, "verified": f.verified} for f in dataset.files],
    }


def check_same_data(run: RunDirectory, dataset: Dataset) -> None:
    """Raises IWAEError when `dataset` is not the one that the run was trained on."""
    recorded = [file["checksum"] for file in run.read_record()["data"]["files"]]
    for file, checksum in itertools.zip_longest(dataset.files, recorded):
        if file is None or file.checksum != checksum:
            name, found = (file.name, file.checksum) if file is not None else (dataset.name, "nothing")
            raise IWAEError(
                f"{run.path}: {name} is not the file that this run was trained on ({found}, recorded {checksum}): put"
                " the old one back, or train in another --run-dir"
            )


def run_dataset(
    run: RunDirectory, datasets_dir: Path | None, reporter: Reporter, moved_to: Path | None = None
) -> Dataset:
    """The data that a run was trained on; `moved_to` is where one's own file is now.

    Raises IWAEError when it can't be had or has changed.
    """
    dataset = load_dataset(str(moved_to or run.config().dataset), directory=datasets_dir, progress=reporter.obtaining)
    check_same_data(run, dataset)
    return dataset


def kept_units(run: RunDirectory) -> tuple[np.ndarray, ...] | None:
    """Of a pruned run, bool `[units]` per layer of the model that it was made from: the units that are left.

    With them it is measured with that model's noise, so that the two differ by what was removed alone. None for
    any other run.
    """
    pruned = run.read_record().get("pruned")
    if pruned is None:
        return None
    masks = []
    for units, kept in zip(pruned["units"], pruned["kept_units"], strict=True):
        mask = np.zeros(units, bool)
        mask[kept] = True
        masks.append(mask)
    return tuple(masks)


@dataclass(frozen=True)
class Evaluation:
    """A likelihood measurement and where it was written."""

    likelihoods: evaluation.Likelihoods
    record: Measured
    json_path: Path
    npz_path: Path


def evaluate_checkpoint(
    run: RunDirectory,
    checkpoint: Checkpoint,
    dataset: Dataset,
    split: Split,
    *,
    samples: int,
    seed: int = 0,
    examples: int | None = None,
    reporter: Reporter,
) -> Evaluation:
    """Measures -L_k of one split and writes `evaluations/<checkpoint>-<split>-<k>.json` and `.npz`.

    The `.npz` holds `log_likelihood` and `effective_sample_size`, float64 `[examples]`.
    """
    check_seed(seed)
    if examples is not None:
        check_count("examples", examples)
    check_writable(run.evaluations_path)
    start = time.perf_counter()
    values = evaluation.likelihoods(
        checkpoint.model(),
        dataset,
        split,
        num_samples=samples,
        seed=seed,
        max_examples=examples,
        kept=kept_units(run),
        on_examples=lambda done, total: reporter.measuring(f"{split} likelihood, k={samples}", done, total),
    )
    record: Measured = {
        "nll": finite_or_none(values.nll),
        "stderr": finite_or_none(values.stderr),
        "num_samples": samples,
        "num_examples": len(values.log_likelihood),
        "split_examples": len(dataset.split(split)),
        "mean_effective_sample_size": finite_or_none(values.mean_effective_sample_size),
        "seed": seed,
    }
    name = f"{checkpoint.path.stem}-{split}-{samples}"
    if seed != 0:
        name += f"-seed{seed}"
    if len(values.log_likelihood) != len(dataset.split(split)):
        name += f"-first{len(values.log_likelihood)}"
    buffer = io.BytesIO()
    np.savez(buffer, log_likelihood=values.log_likelihood, effective_sample_size=values.effective_sample_size)
    json_path, npz_path = run.evaluations_path / f"{name}.json", run.evaluations_path / f"{name}.npz"
    write_atomically(npz_path, buffer.getvalue())
    whole: EvaluationRecord = {
        "split": split,
        **record,
        "checkpoint": checkpoint.path.name,
        "step": checkpoint.step,
        "weights_sha256": checkpoint.weights_digest(),
        "data": data_record(dataset),
        "versions": versions(),
        "device": device(),
        "seconds": round(time.perf_counter() - start, 3),
    }
    write_json(json_path, whole)
    return Evaluation(values, record, json_path, npz_path)


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN: a figure that does not exist is null."""
    return value if math.isfinite(value) else None


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {
        "iwae": __version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def device() -> str:
    """The kind of device that JAX computes on."""
    return jax.devices()[0].device_kind


def write_samples(
    directory: Path, model: HierarchicalVAE, image_shape: tuple[int, int] | None, seed: int
) -> tuple[Path, Path]:
    """Writes `samples.npy`, 100 visible means `[100, visible]`, and their picture `samples.png`."""
    check_seed(seed)
    values = np.asarray(model.sample(purpose_key(seed, Purpose.SAMPLE), NUM_GRID_SAMPLES))
    buffer = io.BytesIO()
    np.save(buffer, values)
    npy_path, png_path = directory / "samples.npy", directory / "samples.png"
    write_atomically(npy_path, buffer.getvalue())
    write_atomically(png_path, sample_grid(values, image_shape))
    return png_path, npy_path


def measure_run(
    run: RunDirectory,
    checkpoint: Checkpoint,
    dataset: Dataset,
    options: MeasureOptions,
    reporter: Reporter,
) -> ResultsRecord:
    """Measures a finished run (test likelihood, active units, samples) and writes `results.json`."""
    start = time.perf_counter()
    config = run.config()
    test = evaluate_checkpoint(
        run,
        checkpoint,
        dataset,
        "test",
        samples=options.test_samples,
        examples=options.examples_for(config),
        reporter=reporter,
    )
    model = checkpoint.model()
    active = active_units(
        model, dataset, on_examples=lambda done, total: reporter.measuring("active units", done, total)
    )
    png_path, npy_path = write_samples(run.path, model, dataset.image_shape, seed=0)
    metrics = [line for line in run.read_metrics() if line["step"] <= checkpoint.step]
    results: ResultsRecord = {
        "config": config.to_json(),
        "seed": config.seed,
        "architecture": checkpoint.architecture.to_json(),
        "data": data_record(dataset),
        "stages_done": checkpoint.stages_done,
        "stages_total": len(config.full_schedule()),
        "epochs": metrics[-1]["epoch"] if metrics else None,
        "step": checkpoint.step,
        "train_bound": metrics[-1]["bound"] if metrics else None,
        "test": test.record,
        "active_units": list(active.counts),
        "active_units_paper_code": list(paper_active_units(model, dataset).counts),
        "seconds": {
            "training": round(checkpoint.seconds, 3),
            "measuring": round(time.perf_counter() - start, 3),
        },
        "checkpoint": str(checkpoint.path.relative_to(run.path)),
        "weights_sha256": checkpoint.weights_digest(),
        "files": {
            "samples": png_path.name,
            "sample_values": npy_path.name,
            "per_example": str(test.npz_path.relative_to(run.path)),
            "metrics": run.metrics_path.name,
        },
        "versions": versions(),
        "device": device(),
    }
    write_json(run.results_path, results)
    return results
