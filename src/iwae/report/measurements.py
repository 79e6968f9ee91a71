"""Likelihood measurements for an analysis: found where one was already made, made where not."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iwae.checkpoint import Checkpoint
from iwae.data import Dataset, Split
from iwae.evaluation import Likelihoods
from iwae.runs.directory import RunDirectory
from iwae.runs.measure import data_record, evaluate_checkpoint, finite_or_none
from iwae.runs.reporter import Reporter

SEED = 0


@dataclass(frozen=True)
class Measurement:
    """-L_k of a split's first examples, and the file in `evaluations/` that holds them (perhaps among others)."""

    likelihoods: Likelihoods
    split_examples: int
    path: Path
    reused: bool

    def to_json(self) -> dict[str, Any]:
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
    """A measurement that `measure` may use, or None. Damaged files are passed over."""
    wanted = {
        "split": split,
        "num_samples": samples,
        "seed": SEED,
        "weights_sha256": checkpoint.weights_digest(),
    }
    for path in sorted(run.evaluations_path.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if any(record[name] != value for name, value in wanted.items()):
                continue
            if record["num_examples"] < examples or record["data"]["files"] != data_record(dataset)["files"]:
                continue
            with np.load(path.with_suffix(".npz")) as arrays:
                values = [np.asarray(arrays[n], np.float64) for n in ("log_likelihood", "effective_sample_size")]
            if any(value.shape != (record["num_examples"],) for value in values):
                continue
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            continue
        likelihoods = Likelihoods(values[0][:examples], values[1][:examples], samples)
        return Measurement(likelihoods, len(dataset.split(split)), path, reused=True)
    return None


def overfitting_gap(test: Likelihoods, train: Likelihoods) -> dict[str, float | None]:
    """Test NLL minus training NLL in nats, and its standard error (the two sets are independent)."""
    return {
        "value": finite_or_none(test.nll - train.nll),
        "stderr": finite_or_none(math.hypot(test.stderr, train.stderr)),
    }
