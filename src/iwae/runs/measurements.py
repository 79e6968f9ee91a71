"""Likelihood measurements for an analysis: found where one was already made, made where not."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iwae.data import Dataset, Split
from iwae.data.files import BadFileError
from iwae.data.formats import read_npz
from iwae.errors import IWAEError
from iwae.evaluation.likelihood import Likelihoods
from iwae.io.json import read_json
from iwae.runs.checkpoint import Checkpoint
from iwae.runs.directory import RunDirectory
from iwae.runs.evaluate import data_record, evaluate_checkpoint, finite_or_none
from iwae.runs.records import EvaluationRecord, GapRecord, Measured
from iwae.runs.reporter import Reporter

SEED = 0
# What a .npy file has before its numbers is less.
MAX_HEADER_BYTES = 1 << 12


@dataclass(frozen=True)
class Measurement:
    """-L_k of a split's first examples, and the file in `evaluations/` that holds them (perhaps among others)."""

    likelihoods: Likelihoods
    split_examples: int
    path: Path
    reused: bool

    def to_json(self) -> Measured:
        """Numbers for a record; null where one does not exist."""
        values = self.likelihoods
        return {
            "nll": finite_or_none(values.nll),
            "stderr": finite_or_none(values.stderr),
            "num_samples": values.num_samples,
            "num_examples": len(values.log_likelihood),
            "split_examples": self.split_examples,
            "mean_effective_sample_size": finite_or_none(values.mean_effective_sample_size),
            "seed": SEED,
            "evaluation": f"evaluations/{self.path.name}",
        }


def measure(
    run: RunDirectory,
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

    Raises IWAEError as `evaluate_checkpoint` does, and OSError when a file can't be written.
    """
    found = find_measurement(run, checkpoint, dataset, split, samples=samples, examples=examples)
    if found is not None:
        return found
    made = evaluate_checkpoint(run, checkpoint, dataset, split, samples=samples, examples=examples, reporter=reporter)
    return Measurement(made.likelihoods, len(dataset.split(split)), made.json_path, reused=False)


def find_measurement(
    run: RunDirectory, checkpoint: Checkpoint, dataset: Dataset, split: Split, *, samples: int, examples: int
) -> Measurement | None:
    """A measurement that `measure` may use, or None. Damaged files, and those of another kind, are passed over."""
    weights, total = checkpoint.weights_digest(), len(dataset.split(split))
    for path in sorted(run.evaluations_path.glob("*.json")):
        try:
            record = read_json(path, EvaluationRecord, "it is measured again")
            found = (record["split"], record["num_samples"], record.get("seed"), record["weights_sha256"])
            if found != (split, samples, SEED, weights) or record["data"]["files"] != data_record(dataset)["files"]:
                continue
            if not examples <= record["num_examples"] <= total:
                continue
            likelihoods = read_likelihoods(path.with_suffix(".npz"), record)
        except (OSError, IWAEError, BadFileError):
            continue
        first = Likelihoods(
            likelihoods.log_likelihood[:examples], likelihoods.effective_sample_size[:examples], samples
        )
        return Measurement(first, total, path, reused=True)
    return None


def read_likelihoods(path: Path, record: EvaluationRecord) -> Likelihoods:
    """The values of every example, float64, from the `.npz` that belongs to a record.

    Raises BadFileError or IWAEError for a damaged file and for one of another number of examples, before memory is
    taken for it, and OSError where it can't be read.
    """
    count = record["num_examples"]
    names = ("log_likelihood", "effective_sample_size")
    max_bytes = len(names) * (count * np.dtype(np.float64).itemsize + MAX_HEADER_BYTES)
    # An archive's directory is read whole: it must not be the larger part.
    if path.stat().st_size > max_bytes:
        raise BadFileError(f"more than two arrays of {count} numbers")
    arrays = read_npz(path, names, max_bytes=max_bytes)
    for name in names:
        if name not in arrays or arrays[name].shape != (count,) or arrays[name].dtype != np.float64:
            raise BadFileError(f"no float64 numbers '{name}' of {count} examples")
    return Likelihoods(arrays[names[0]], arrays[names[1]], record["num_samples"])


def overfitting_gap(test: Likelihoods, train: Likelihoods) -> GapRecord:
    """Test NLL minus training NLL in nats, and its standard error (the two sets are independent)."""
    return {
        "value": finite_or_none(test.nll - train.nll),
        "stderr": finite_or_none(math.hypot(test.stderr, train.stderr)),
    }
