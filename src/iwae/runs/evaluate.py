"""Measuring a run's checkpoint, recording what came out, and finding it again."""

import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import jax
import numpy as np

from iwae.data import Dataset, Split
from iwae.data.files import BadFileError
from iwae.data.formats import read_npz
from iwae.errors import IWAEError, check_count
from iwae.evaluation import likelihood as evaluation
from iwae.evaluation.active_units import active_units, paper_active_units
from iwae.evaluation.importance_weights import shape_figures
from iwae.figures.charts import ladder_chart
from iwae.io.files import check_writable, write_arrays, write_atomically, write_json
from iwae.io.json import finite_or_none, read_json
from iwae.runs.checkpoint import Checkpoint
from iwae.runs.config import check_seed
from iwae.runs.data import data_record, say_if_no_sample
from iwae.runs.directory import Run
from iwae.runs.options import MeasureOptions
from iwae.runs.records import (
    EvaluationRecord,
    GapRecord,
    Made,
    Measured,
    Provenance,
    ResultsRecord,
    WeightsFigures,
    measured_enough,
)
from iwae.runs.reporter import Reporter
from iwae.runs.sample import write_samples
from iwae.version import __version__, source_commit

# What a .npy file has before its numbers is less.
MAX_HEADER_BYTES = 1 << 12
# Units are counted on no more training examples: what is kept of each takes memory.
MOST_ACTIVE_EXAMPLES = 100_000


def kept_units(run: Run) -> tuple[np.ndarray, ...] | None:
    """Of a pruned run, bool `[units]` per layer of the model that it was made from: the units that are left.

    With them it is measured with that model's noise, so that the two differ by what was removed alone. None for
    any other run.
    """
    pruned = run.record.get("pruned")
    if pruned is None:
        return None
    return tuple(
        np.isin(np.arange(units), kept) for units, kept in zip(pruned["units"], pruned["kept_units"], strict=True)
    )


@dataclass(frozen=True)
class Measurement:
    """-L_k of a split's first examples, and the file in `evaluations/` that holds them, perhaps among others; the
    `.npz` of the same name has `log_likelihood`, `effective_sample_size`, `jvi2` and `pareto_k`, float64 `[examples]`.
    """

    likelihoods: evaluation.Likelihoods
    split_examples: int
    seed: int
    path: Path
    reused: bool = False

    @property
    def npz_path(self) -> Path:
        """Where the values of every example are."""
        return self.path.with_suffix(".npz")

    def to_json(self) -> Measured:
        """Numbers for a record; null where one does not exist."""
        values = self.likelihoods
        return {
            "nll": finite_or_none(values.nll),
            "stderr": finite_or_none(values.stderr),
            "num_examples": len(values.log_likelihood),
            "split_examples": self.split_examples,
            "mean_effective_sample_size": finite_or_none(values.mean_effective_sample_size),
            **weights_figures(values),
            "seed": self.seed,
            "evaluation": f"evaluations/{self.path.name}",
        }


def weights_figures(values: evaluation.Likelihoods) -> WeightsFigures:
    """What a record says of the importance weights: how far to trust L_k."""
    median, above = shape_figures(values.pareto_k)
    return {
        "num_samples": values.num_samples,
        "delta": finite_or_none(float(np.mean(values.delta))),
        "jvi2_nll": finite_or_none(values.jvi2_nll),
        "pareto_k_median": finite_or_none(median),
        "pareto_k_above": finite_or_none(above),
    }


def evaluate_ladder(
    run: Run,
    checkpoint: Checkpoint,
    dataset: Dataset,
    split: Split,
    *,
    samples: Sequence[int],
    seed: int = 0,
    examples: int | None = None,
    reporter: Reporter,
) -> list[Measurement]:
    """Measures -L_k of one split for each k of `samples`, in one pass, and writes
    `evaluations/<checkpoint>-<split>-<k>.json` and `.npz`, whose `seconds` are those of the pass.

    Raises IWAEError for a number of samples outside 1 to 100,000 or of examples below 1, and OSError when a file can't
    be written.
    """
    check_seed(seed)
    ks = evaluation.check_ks(samples, "samples")
    check_count("examples", examples, optional=True)
    check_writable(run.evaluations_path)
    start = time.perf_counter()
    found = measured_ladder(run, checkpoint, dataset, split, ks, seed, examples, reporter)
    seconds = round(time.perf_counter() - start, 3)
    return [write_measurement(run, checkpoint, dataset, split, values, seed, seconds=seconds) for values in found]


def measured_ladder(
    run: Run,
    checkpoint: Checkpoint,
    dataset: Dataset,
    split: Split,
    ks: Sequence[int],
    seed: int,
    examples: int | None,
    reporter: Reporter,
    first: int = 0,
) -> list[evaluation.Likelihoods]:
    """The likelihoods of a split's first `examples`, from number `first` on, with the noise of the run's model."""
    say_if_no_sample(dataset, split, examples, reporter)
    return evaluation.ladder(
        checkpoint.model(),
        dataset,
        ks,
        split,
        seed=seed,
        max_examples=examples,
        first=first,
        kept=kept_units(run),
        on_examples=lambda done, total: reporter.measuring(f"{split} likelihood, k={ks[-1]}", done, total),
    )


def measurement_path(
    run: Run, checkpoint: Checkpoint, split: Split, samples: int | str, seed: int, count: int, total: int
) -> Path:
    """Where the record is of `count` of a split's `total` examples."""
    parts = [f"{checkpoint.path.stem}-{split}-{samples}", f"seed{seed}" if seed else ""]
    name = "-".join(filter(None, [*parts, f"first{count}" if count != total else ""]))
    return run.evaluations_path / f"{name}.json"


def write_measurement(
    run: Run,
    checkpoint: Checkpoint,
    dataset: Dataset,
    split: Split,
    values: evaluation.Likelihoods,
    seed: int,
    **made: Unpack[Made],
) -> Measurement:
    """Writes a record and its `.npz`."""
    count, total = len(values.log_likelihood), len(dataset.split(split))
    path = measurement_path(run, checkpoint, split, values.num_samples, seed, count, total)
    found = Measurement(values, total, seed, path)
    write_arrays(found.npz_path, np.savez, **values.arrays)
    record: EvaluationRecord = {"split": split, **found.to_json(), **provenance(checkpoint, dataset, **made)}
    write_json(found.path, record)
    return found


def provenance(checkpoint: Checkpoint, dataset: Dataset, **made: Unpack[Made]) -> Provenance:
    """What a measurement's record says of the weights, the data, the program and the time that it took."""
    return {
        "checkpoint": checkpoint.path.name,
        "step": checkpoint.step,
        "weights_sha256": checkpoint.weights_digest(),
        "data": data_record(dataset),
        "versions": versions(),
        "device": device(),
        **made,
    }


def draw_ladder(run: Run, checkpoint: Checkpoint, split: Split, rungs: Sequence[Measurement]) -> tuple[Path, int]:
    """Writes the picture of NLL over k as `evaluations/<checkpoint>-<split>-ladder.png`, and says of how many examples
    it is. Of the run's AIS of these weights, at most as many examples serve as were measured here: then both are of
    its first ones alone, since other examples have another likelihood.

    Raises IWAEError where matplotlib is not installed.
    """
    measured = len(rungs[0].likelihoods.log_likelihood)
    annealed, _ = run.annealed(checkpoint.weights_digest(), split, measured)
    first = slice(annealed["num_examples"] if annealed else measured)
    ks, values = [rung.likelihoods.num_samples for rung in rungs], [rung.likelihoods.arrays for rung in rungs]
    names = {"-L_k": "log_likelihood", "JVI-2": "jvi2"}
    lines = {shown: [-float(np.mean(arrays[name][first])) for arrays in values] for shown, name in names.items()}
    asymptote = None
    if annealed is not None and annealed["nll"] is not None:
        asymptote = annealed["nll"], annealed["chain_stderr"] or 0.0
    path = run.evaluations_path / f"{checkpoint.path.stem}-{split}-ladder.png"
    write_atomically(path, ladder_chart(ks, lines, asymptote))
    return path, first.stop


def measure(
    run: Run,
    checkpoint: Checkpoint,
    dataset: Dataset,
    split: Split,
    *,
    samples: int,
    examples: int,
    reporter: Reporter,
) -> Measurement:
    """-L_k of the first `examples` examples of a split, with seed 0.

    A measurement in `evaluations/` serves if it has the same weights, data, k and seed and at least as many
    examples: an example's draws do not depend on how many others were measured.

    Raises IWAEError as `evaluate_ladder` does, and OSError when a file can't be written.
    """
    if found := find_measurement(run, checkpoint, dataset, split, samples=samples, examples=examples):
        return found
    return evaluate_ladder(run, checkpoint, dataset, split, samples=[samples], examples=examples, reporter=reporter)[0]


def find_measurement(
    run: Run, checkpoint: Checkpoint, dataset: Dataset, split: Split, *, samples: int, examples: int
) -> Measurement | None:
    """A measurement that `measure` may use, or None. Damaged files, and those of another kind, are passed over."""
    total = len(dataset.split(split))
    wanted = (split, samples, total, 0, checkpoint.weights_digest(), data_record(dataset)["files"])

    def fits(record: EvaluationRecord) -> bool:
        found = (record["split"], record["num_samples"], record["split_examples"], record.get("seed"))
        return (
            (*found, record["weights_sha256"], record["data"]["files"]) == wanted
            and measured_enough(record, samples, examples)
            and record["num_examples"] <= total
        )

    for path in sorted(run.evaluations_path.glob("*.json")):
        if (found := _read(path, fits)) is not None:
            first = {name: array[:examples] for name, array in found.likelihoods.arrays.items()}
            return replace(found, likelihoods=evaluation.Likelihoods(num_samples=samples, **first))
    return None


def read_measurement(path: Path, checkpoint: Checkpoint, count: int) -> Measurement | None:
    """What `write_measurement` has written to `path` of `count` examples; None as `find_measurement`."""
    wanted = checkpoint.weights_digest(), count
    return _read(path, lambda record: (record["weights_sha256"], record["num_examples"]) == wanted)


def _read(path: Path, fits: Callable[[EvaluationRecord], bool]) -> Measurement | None:
    """A measurement whose record fits; None where it does not, or is damaged."""
    try:
        record = read_json(path, EvaluationRecord, "it is measured again")
        if not fits(record):
            return None
        values = read_likelihoods(path.with_suffix(".npz"), record)
    except (OSError, IWAEError, BadFileError):
        return None
    return Measurement(values, record["split_examples"], record.get("seed", 0), path, reused=True)


def read_kept(path: Path, names: Sequence[str], numbers: int) -> dict[str, np.ndarray]:
    """The float64 arrays of those names, of at most so many `numbers` together, that interrupted work has kept in a
    file: none where there is no such file, or it is damaged.
    """
    try:
        arrays = read_npz(path, tuple(names), max_bytes=8 * numbers + len(names) * MAX_HEADER_BYTES)
    except (OSError, IWAEError, BadFileError):
        return {}
    return arrays if all(array.dtype == np.float64 for array in arrays.values()) else {}


def read_likelihoods(path: Path, record: EvaluationRecord) -> evaluation.Likelihoods:
    """The values of every example, float64, from the `.npz` that belongs to a record. JVI-2 and Pareto k-hat, which
    versions before 0.2 did not write, are NaN where they are missing.

    Raises BadFileError or IWAEError for a damaged file and for one of another number of examples, before memory is
    taken for it, and OSError where it can't be read.
    """
    count = record["num_examples"]
    names = evaluation.ARRAYS
    max_bytes = len(names) * (count * np.dtype(np.float64).itemsize + MAX_HEADER_BYTES)
    # An archive's directory is read whole: it must not be the larger part.
    if path.stat().st_size > max_bytes:
        raise BadFileError(f"more than four arrays of {count} numbers")
    unknown = dict.fromkeys(names[2:], np.full(count, np.nan))
    arrays = unknown | read_npz(path, names, max_bytes=max_bytes)
    for name in names:
        if name not in arrays or arrays[name].shape != (count,) or arrays[name].dtype != np.float64:
            raise BadFileError(f"no float64 numbers '{name}' of {count} examples")
    return evaluation.Likelihoods(num_samples=record["num_samples"], **arrays)


def overfitting_gap(test: evaluation.Likelihoods, train: evaluation.Likelihoods) -> GapRecord:
    """Test NLL minus training NLL in nats, and its standard error (the two sets are independent)."""
    return {
        "value": finite_or_none(test.nll - train.nll),
        "stderr": finite_or_none(math.hypot(test.stderr, train.stderr)),
    }


def versions() -> dict[str, str]:
    """Versions that a result depends on, with the commit where iwae is used from a checkout."""
    commit = source_commit()
    return {
        "iwae": __version__,
        **({} if commit is None else {"commit": commit}),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def device() -> str:
    """The kind of device that JAX computes on."""
    return jax.devices()[0].device_kind


def measure_run(
    run: Run, checkpoint: Checkpoint, dataset: Dataset, options: MeasureOptions, reporter: Reporter
) -> ResultsRecord:
    """Measures a finished run (test likelihood, where it is not measured yet, active units, samples) and writes
    `results.json`.
    """
    start = time.perf_counter()
    config = run.config
    samples, examples = options.test_samples, options.examples_for(config) or len(dataset.test)
    test = measure(run, checkpoint, dataset, "test", samples=samples, examples=examples, reporter=reporter)
    model = checkpoint.model()
    active = active_units(
        model,
        dataset,
        max_examples=MOST_ACTIVE_EXAMPLES,
        on_examples=lambda done, total: reporter.measuring("active units", done, total),
    )
    shown, values = write_samples(run.path, model, data_record(dataset), dataset.columns)
    metrics = run.metrics.lines(checkpoint.step)
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
        "test": test.to_json(),
        "active_units": list(active.counts),
        "active_units_paper_code": list(paper_active_units(model, dataset).counts),
        "seconds": {
            "training": round(checkpoint.seconds, 3),
            "measuring": round(time.perf_counter() - start, 3),
        },
        "checkpoint": str(checkpoint.path.relative_to(run.path)),
        "weights_sha256": checkpoint.weights_digest(),
        "files": {
            "samples": shown.name,
            "sample_values": values.name,
            "per_example": str(test.npz_path.relative_to(run.path)),
            "metrics": run.metrics.path.name,
        },
        "versions": versions(),
        "device": device(),
    }
    write_json(run.results_path, results)
    return results
