"""Annealed importance sampling of a run's checkpoint, recorded beside L_k; an interrupted measurement goes on."""

import contextlib
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from iwae.data import Dataset, Split
from iwae.errors import IWAEError, check_count
from iwae.evaluation.annealed import AnnealedLikelihoods, ais, low_acceptance
from iwae.evaluation.chains import AnnealedSettings
from iwae.evaluation.examples import examples_at_once
from iwae.io.files import check_writable, write_arrays, write_json
from iwae.io.json import finite_or_none
from iwae.models.vae import HierarchicalVAE
from iwae.runs.checkpoint import Checkpoint
from iwae.runs.config import check_seed
from iwae.runs.data import data_record, say_if_no_sample
from iwae.runs.directory import Run
from iwae.runs.evaluate import provenance, read_kept
from iwae.runs.records import AnnealedRecord, Made, read_checked
from iwae.runs.reporter import Reporter


@dataclass(frozen=True)
class AnnealedMeasurement:
    """What `anneal_checkpoint` found and wrote. `warning` says, when it is measured, what speaks against it. The `.npz`
    of the same name has, float64, `log_likelihood`, `acceptance` `[examples]` and `log_weights` `[chains, examples]`.
    """

    record: AnnealedRecord
    path: Path
    warning: str | None


def anneal_checkpoint(
    run: Run,
    checkpoint: Checkpoint,
    dataset: Dataset,
    split: Split,
    *,
    settings: AnnealedSettings,
    examples: int | None = None,
    reporter: Reporter,
) -> AnnealedMeasurement:
    """log p(x) of a split's first examples (by default all) by `iwae.ais`, written to
    `evaluations/<checkpoint>-<split>-ais-<chains>x<steps>x<leapfrogs>.json` and `.npz`.

    After every 64 examples what is done is kept: the same call goes on from there, and ends in the same bits.

    Raises IWAEError as `iwae.ais` does and for a number of examples below 1, and OSError where a file can't be written.
    """
    check_seed(settings.seed)
    check_count("examples", examples, optional=True)
    check_writable(run.evaluations_path)
    total = len(dataset.split(split))
    count = min(total, examples or total)
    unfinished = unfinished_path(measurement_path(run, checkpoint, split, settings, count, total), checkpoint)
    start = time.perf_counter()
    found = measured_chains(checkpoint.model(), dataset, split, settings, unfinished, count, reporter)
    seconds = round(time.perf_counter() - start, 3)
    made = write_measurement(run, checkpoint, dataset, split, settings, *found, seconds=seconds)
    remove_unfinished(unfinished)
    return made


def measured_chains(
    model: HierarchicalVAE,
    dataset: Dataset,
    split: Split,
    settings: AnnealedSettings,
    unfinished: Path,
    count: int,
    reporter: Reporter,
    first: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Log weights `[chains, n]` and acceptances `[n]` of a split's first `count` examples, from number `first` on. What
    is done is kept in `unfinished`, and what is there is gone on with.
    """
    log_weights, acceptance = _done(unfinished, settings.chains, count - first)
    what = f"{split} likelihood, AIS"
    say_if_no_sample(dataset, split, count, reporter)
    reporter.message(f"AIS of {count - first:,} examples: {settings.chains} chains of {settings.steps} steps for each.")
    reporter.measuring(what, len(acceptance), count - first)
    while (done := first + len(acceptance)) < count:
        indices = np.arange(done, min(done + examples_at_once(), count))
        with warnings.catch_warnings():
            # Said once, of all examples.
            warnings.simplefilter("ignore", UserWarning)
            how = {name: getattr(settings, name) for name in ("chains", "steps", "leapfrogs", "start", "seed")}
            found = ais(model, dataset, split, indices=indices, **how)
        log_weights = np.concatenate([log_weights, found.log_weights], axis=1)
        acceptance = np.concatenate([acceptance, found.acceptance])
        write_arrays(unfinished, np.savez, log_weights=log_weights, acceptance=acceptance)
        reporter.measuring(what, len(acceptance), count - first)
    return log_weights, acceptance


def write_measurement(
    run: Run,
    checkpoint: Checkpoint,
    dataset: Dataset,
    split: Split,
    settings: AnnealedSettings,
    log_weights: np.ndarray,
    acceptance: np.ndarray,
    **made: Unpack[Made],
) -> AnnealedMeasurement:
    """Writes a record and its `.npz`."""
    count, total = len(acceptance), len(dataset.split(split))
    path = measurement_path(run, checkpoint, split, settings, count, total)
    values = AnnealedLikelihoods(log_weights, acceptance, np.full(settings.steps, np.nan), settings)
    record: AnnealedRecord = {
        "method": "ais",
        "split": split,
        "nll": finite_or_none(values.nll),
        "stderr": finite_or_none(values.nll_stderr) if count > 1 else None,
        "chain_stderr": finite_or_none(float(np.sqrt(np.sum(values.stderr**2)) / count)),
        "num_examples": count,
        "split_examples": total,
        "chains": settings.chains,
        "steps": settings.steps,
        "leapfrogs": settings.leapfrogs,
        "start": settings.start,
        "seed": settings.seed,
        "acceptance": finite_or_none(float(np.mean(acceptance))),
        "mean_effective_sample_size": finite_or_none(float(np.mean(values.effective_sample_size))),
        **provenance(checkpoint, dataset, **made),
    }
    arrays = {"log_likelihood": values.log_likelihood, "acceptance": acceptance, "log_weights": log_weights}
    write_arrays(path.with_suffix(".npz"), np.savez, **arrays)
    write_json(path, record)
    return AnnealedMeasurement(record, path, low_acceptance(acceptance))


def find_annealed(
    run: Run, checkpoint: Checkpoint, dataset: Dataset, split: Split, settings: AnnealedSettings, count: int
) -> AnnealedMeasurement | None:
    """What `anneal_checkpoint` has written of a split's first `count` examples, or None. A damaged record, and one of
    other weights or data, is passed over.
    """
    path = measurement_path(run, checkpoint, split, settings, count, len(dataset.split(split)))
    with contextlib.suppress(OSError, IWAEError):
        record = read_checked(path, AnnealedRecord, "it is measured again")
        same = record["weights_sha256"] == checkpoint.weights_digest() and record["num_examples"] == count
        if same and record["data"]["files"] == data_record(dataset)["files"]:
            return AnnealedMeasurement(record, path, None)
    return None


def measurement_path(
    run: Run, checkpoint: Checkpoint, split: Split, settings: AnnealedSettings, count: int, total: int
) -> Path:
    """Where the record is of `count` of a split's `total` examples."""
    name = f"{checkpoint.path.stem}-{split}-ais-{settings.chains}x{settings.steps}x{settings.leapfrogs}"
    first = f"-first{count}" if count != total else ""
    return run.evaluations_path / f"{name_of_settings(name, settings)}{first}.json"


def name_of_settings(name: str, settings: AnnealedSettings) -> str:
    """`name` with the start and the seed, where they are unusual."""
    start = f"-{settings.start}" if settings.start != "encoder" else ""
    return name + start + (f"-seed{settings.seed}" if settings.seed else "")


def unfinished_path(path: Path, checkpoint: Checkpoint) -> Path:
    """Where what is done for the record `path` is kept until it is whole. Of other weights under the same checkpoint's
    name nothing is used.
    """
    return path.with_suffix(f".{checkpoint.weights_digest()[:16]}.unfinished.npz")


def remove_unfinished(path: Path) -> None:
    """Removes what was kept for a record that is whole now."""
    with contextlib.suppress(OSError):
        path.unlink()


def _done(path: Path, chains: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Log weights `[chains, done]` and acceptances `[done]` of an interrupted measurement: none where there was none,
    or its file is damaged.
    """
    nothing = {"log_weights": np.empty((chains, 0)), "acceptance": np.empty(0)}
    arrays = nothing | read_kept(path, tuple(nothing), (chains + 1) * count)
    log_weights, acceptance = arrays["log_weights"], arrays["acceptance"]
    fits = acceptance.ndim == 1 and len(acceptance) <= count and log_weights.shape == (chains, len(acceptance))
    return (log_weights, acceptance) if fits else (nothing["log_weights"], nothing["acceptance"])
