"""Pruning a run: a smaller model without its inactive units, in a run directory of its own."""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from iwae import evaluation
from iwae.architecture import Architecture
from iwae.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from iwae.data import Dataset
from iwae.errors import IWAEError
from iwae.files import write_json
from iwae.optim import paper_adam
from iwae.pruning import prune, units_to_keep
from iwae.runs.config import MeasureOptions
from iwae.runs.directory import RunDirectory
from iwae.runs.measure import measure_run
from iwae.runs.reporter import Reporter
from iwae.training import TrainState


@dataclass(frozen=True)
class PruneResult:
    """NLL in nats before and after, with the same noise; `difference` is after minus before, with its standard
    error over examples. `kept` and `total` count units per layer.
    """

    before: float
    after: float
    difference: float
    difference_stderr: float
    kept: tuple[int, ...]
    total: tuple[int, ...]


def prune_run(
    source: RunDirectory,
    out: RunDirectory,
    dataset: Dataset,
    *,
    checkpoint: int | None = None,
    samples: int = 5000,
    examples: int | None = None,
    reporter: Reporter | None = None,
) -> PruneResult:
    """Writes the newest (or the given) checkpoint of `source` without its inactive units as the run `out`.

    Activity is measured on the whole training set. Both models are measured on the test set with the same noise,
    and `out` gets its own `results.json`. Everything but training accepts the pruned run; `iwae train
    --init-from` trains on from it.

    Raises IWAEError when `out` is not empty or every unit is active, and CheckpointError for a bad checkpoint.
    """
    reporter = reporter or Reporter()
    out.check_no_file_in_the_way()
    if out.path.is_dir() and any(out.path.iterdir()):
        raise IWAEError(f"{out.path} is not empty: choose another --out")
    origin = source.newest_checkpoint() if checkpoint is None else source.load_checkpoint(checkpoint)
    model = origin.model()
    reporter.message("Finding inactive units.")
    units = evaluation.active_units(model, dataset)
    kept = units_to_keep(units)
    counts, total = tuple(int(mask.sum()) for mask in kept), tuple(map(len, kept))
    if counts == total:
        raise IWAEError(f"{source.path}: all units are active ({'+'.join(map(str, total))}), nothing to prune")
    smaller = prune(model, kept, units.means)

    def measure(what: str, subject: Any, mask: tuple[np.ndarray, ...] | None) -> np.ndarray:
        return evaluation.likelihoods(
            subject,
            dataset,
            num_samples=samples,
            max_examples=examples,
            kept=mask,
            on_examples=lambda done, count: reporter.measuring(f"{what} pruning, k={samples}", done, count),
        ).log_likelihood

    before, after = measure("before", model, None), measure("after", smaller, kept)
    result = PruneResult(
        before=-float(before.mean()),
        after=-float(after.mean()),
        difference=float((before - after).mean()),
        difference_stderr=float((before - after).std(ddof=1)) / math.sqrt(len(before)) if len(before) > 1 else 0.0,
        kept=counts,
        total=total,
    )
    _write(source, out, origin, smaller, kept, result, samples, len(before))
    pruned = load_checkpoint(out.checkpoint_path(origin.stages_done))
    options = MeasureOptions(test_samples=samples, test_examples=examples or len(dataset.test))
    with out.lock():
        measure_run(out, pruned, dataset, options, reporter)
    return result


def _write(
    source: RunDirectory,
    out: RunDirectory,
    origin: Checkpoint,
    model: Any,
    kept: tuple[np.ndarray, ...],
    result: PruneResult,
    samples: int,
    examples: int,
) -> None:
    record = source.read_record()
    architecture = Architecture(
        origin.architecture.visible, model.latent, origin.architecture.hidden, origin.architecture.kinds
    )
    state = TrainState.create(model, paper_adam(), origin.seed)
    state = replace(
        state,
        step=jnp.asarray(origin.arrays["step"]),
        epoch_bound=jnp.asarray(origin.arrays["epoch_bound"]),
    )
    out.create()
    with out.lock():
        save_checkpoint(
            out.checkpoint_path(origin.stages_done),
            state,
            architecture=architecture,
            seed=origin.seed,
            stages_done=origin.stages_done,
            seconds=origin.seconds,
        )
        metrics = [line for line in source.read_metrics() if line["step"] <= origin.step]
        for line in metrics:
            out.append_metrics(line)
        pruned = {
            "source": str(source.path.resolve()),
            "checkpoint": origin.path.name,
            "weights_sha256": origin.weights_digest(),
            "kept_units": [np.flatnonzero(mask).tolist() for mask in kept],
            "nll_before": result.before,
            "nll_after": result.after,
            "difference": result.difference,
            "difference_stderr": result.difference_stderr,
            "num_samples": samples,
            "num_examples": examples,
        }
        write_json(out.path / "pruning.json", pruned)
        out.write_record({**record, "architecture": architecture.to_json(), "pruned": pruned})
