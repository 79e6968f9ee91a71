"""Runs compared by the likelihoods of the same test examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iwae.data.files import BadFileError
from iwae.errors import IWAEError
from iwae.evaluation.likelihood import Likelihoods, standard_error
from iwae.io.json import finite_or_none
from iwae.runs.directory import Run
from iwae.runs.evaluate import read_likelihoods
from iwae.runs.records import EvaluationRecord, ResultsRecord, read_checked


@dataclass(frozen=True)
class _Measured:
    run: Run
    results: ResultsRecord
    values: Likelihoods


def compare_runs(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """One record a run, of JSON's plain values: its test NLL in nats, and `difference`, its NLL less that of the first
    run, averaged over the test examples that all have in common, the first `num_examples`. `difference_stderr` is the
    standard error of this mean over examples: what is hard for both models cancels. None for a figure that does not
    exist.

    The draws belong to these too: an example has the same binarization and the same noise in both.

    Raises IWAEError for fewer than two runs, a run that is given twice, one that is not measured, and runs that were
    measured on other test examples or with other numbers of samples.
    """
    if len(paths) < 2:
        raise IWAEError("what is to be compared? give the directories of two runs or more")
    resolved = [Path(path).resolve() for path in paths]
    if twice := [str(path) for path, at in zip(paths, resolved, strict=True) if resolved.count(at) > 1]:
        raise IWAEError(f"a run can't be compared with itself: {' and '.join(twice)} are one; give each once")
    measured = [_measured(Run.open(path)) for path in paths]
    first = measured[0]
    for other in measured[1:]:
        if _examples(other.results) != _examples(first.results):
            raise IWAEError(f"{other.run.path} and {first.run.path} were measured on different test examples")
        mine, there = (one.values.num_samples for one in (other, first))
        if mine != there:
            raise IWAEError(
                f"{other.run.path} was measured with {mine:,} samples, {first.run.path} with {there:,}: train again"
                " with the same `test_samples`, and the run is measured so"
            )
    count = min(len(one.values.log_likelihood) for one in measured)
    return [_record(one, first, count) for one in measured]


def _measured(run: Run) -> _Measured:
    results = run.results()
    if results is None:
        raise IWAEError(f"{run.path} is not measured yet: `iwae train` does it when it is through")
    # By its name alone: a record may come from anywhere.
    path = (run.evaluations_path / Path(results["files"]["per_example"]).name).with_suffix(".json")
    advice = "measure the run again with `iwae evaluate`"
    record = read_checked(path, EvaluationRecord, advice)
    if record["weights_sha256"] != results["weights_sha256"]:
        raise IWAEError(f"{path} is of other weights than results.json: {advice}")
    try:
        return _Measured(run, results, read_likelihoods(path.with_suffix(".npz"), record))
    except BadFileError as error:
        raise IWAEError(f"{path.with_suffix('.npz')}: {error}; {advice}") from error


def _examples(results: ResultsRecord) -> tuple[Any, ...]:
    """What tells two sets of test examples apart."""
    return results["test"]["split_examples"], *(file["checksum"] for file in results["data"]["files"])


def _record(one: _Measured, first: _Measured, count: int) -> dict[str, Any]:
    mine, there = (side.values.log_likelihood[:count] for side in (one, first))
    record: dict[str, Any] = {
        "run": one.run.path.resolve().name,
        "path": str(one.run.path),
        "nll": finite_or_none(-float(np.mean(mine))),
        "stderr": finite_or_none(standard_error(mine)),
        "difference": None,
        "difference_stderr": None,
        "better": None,
        "num_samples": one.values.num_samples,
        "num_examples": count,
    }
    if one is not first and np.isfinite(mine).all() and np.isfinite(there).all():
        record["difference"] = -float(np.mean(mine - there))
        record["difference_stderr"] = finite_or_none(standard_error(mine - there))
        record["better"] = float(np.mean(mine > there))
    return record
