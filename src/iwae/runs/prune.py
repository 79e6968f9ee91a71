"""Pruning a run: a smaller model without its inactive units, in a run directory of its own."""

from dataclasses import dataclass, replace

import numpy as np
import optax

from iwae.data import Dataset
from iwae.errors import IWAEError, check_count
from iwae.evaluation.active_units import ActiveUnits, active_units
from iwae.evaluation.likelihood import check_samples, likelihoods, standard_error
from iwae.io.files import write_json
from iwae.io.json import finite_or_none
from iwae.models.pruning import check_prunable, prune, units_to_keep
from iwae.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from iwae.runs.directory import Run
from iwae.runs.evaluate import kept_units, measure_run
from iwae.runs.options import MeasureOptions
from iwae.runs.records import PrunedRecord, PruningFigures
from iwae.runs.reporter import Reporter
from iwae.runs.whole import check_free, made_whole
from iwae.training.optim import paper_adam
from iwae.training.step import TrainState


@dataclass(frozen=True)
class PruneResult:
    """NLL in nats before and after, with the same noise; `difference` is after minus before, with its standard
    error over examples (NaN for one example). `kept` and `total` count units per layer; `kept_inactive` are the
    numbers of the layers, from 1, in which no unit is active and one is kept so that the layer exists.
    """

    before: float
    after: float
    difference: float
    difference_stderr: float
    kept: tuple[int, ...]
    total: tuple[int, ...]
    kept_inactive: tuple[int, ...]


def prune_run(
    source: Run,
    out: Run,
    dataset: Dataset,
    *,
    checkpoint: int | None = None,
    samples: int = 5000,
    examples: int | None = None,
    reporter: Reporter | None = None,
) -> PruneResult:
    """Writes the newest (or the given) checkpoint of `source` without its inactive units as the run `out`.

    Activity is measured on the whole training set. Both models are measured on the test set with the same noise:
    the second measurement is the pruned run's own result, and every later one of it uses that noise too. The
    optimizer's moments are pruned with the weights. Everything but training accepts the pruned run; `iwae train
    --init-from` trains on from it. `out` appears once it is whole: an interrupted call leaves nothing in its place.

    Raises IWAEError when `out` is not empty, there is nothing to prune, or `samples` or `examples` have no meaning,
    and CheckpointError for a bad checkpoint.
    """
    check_samples("samples", samples)
    check_count("examples", examples, optional=True)
    reporter = reporter or Reporter()
    check_free(out)
    check_prunable(source.architecture.network, source.architecture.prior, source.architecture.posterior)
    origin = source.checkpoint(checkpoint)
    model = origin.model()
    reporter.message("Finding inactive units.")
    units = active_units(model, dataset)
    kept, kept_inactive = units_to_keep(units.active, units.variances), layers_kept_inactive(units)
    counts, total = tuple(int(mask.sum()) for mask in kept), tuple(map(len, kept))
    if counts == total:
        raise IWAEError(f"{source.path}: {_nothing_to_prune(total, kept_inactive)}")
    before = likelihoods(
        model,
        dataset,
        num_samples=samples,
        max_examples=examples,
        kept=kept_units(source),
        on_examples=lambda done, count: reporter.measuring(f"before pruning, k={samples}", done, count),
    ).log_likelihood
    figures: PruningFigures = {
        "nll_before": None,
        "nll_after": None,
        "difference": None,
        "difference_stderr": None,
        "num_samples": samples,
        "num_examples": len(before),
        "split_examples": len(dataset.test),
        "kept_inactive": list(kept_inactive),
    }
    with made_whole(out) as unfinished:
        state = prune_state(origin, kept, units.means)
        pruned_record = _write_model(source, unfinished, origin, state, kept, figures)
        pruned = load_checkpoint(unfinished.checkpoint_path(origin.stages_done))
        options = MeasureOptions(test_samples=samples, test_examples=examples or len(dataset.test))
        results = measure_run(unfinished, pruned, dataset, options, reporter)
        with np.load(unfinished.path / results["files"]["per_example"]) as arrays:
            after = arrays["log_likelihood"]
        result = PruneResult(
            before=-float(before.mean()),
            after=-float(after.mean()),
            difference=float((before - after).mean()),
            difference_stderr=standard_error(before - after),
            kept=counts,
            total=total,
            kept_inactive=kept_inactive,
        )
        pruned_record |= {
            "nll_before": finite_or_none(result.before),
            "nll_after": finite_or_none(result.after),
            "difference": finite_or_none(result.difference),
            "difference_stderr": finite_or_none(result.difference_stderr),
        }
        write_json(unfinished.path / "pruning.json", pruned_record)
        unfinished.write_record({**unfinished.record, "pruned": pruned_record})
    return result


def layers_kept_inactive(units: ActiveUnits) -> tuple[int, ...]:
    """Numbers, from 1, of the layers without an active unit, of which pruning leaves one."""
    return tuple(number for number, count in enumerate(units.counts, 1) if count == 0)


def _nothing_to_prune(total: tuple[int, ...], kept_inactive: tuple[int, ...]) -> str:
    if not kept_inactive:
        return f"all units are active ({'+'.join(map(str, total))}), nothing to prune"
    layers = " and ".join(map(str, kept_inactive))
    return (
        f"nothing to prune: of layer{'s' if len(kept_inactive) > 1 else ''} {layers} only one unit is left, which is"
        " inactive but without which there is no layer; all others are active"
    )


def prune_state(origin: Checkpoint, kept: tuple[np.ndarray, ...], means: tuple[np.ndarray, ...]) -> TrainState:
    """The whole state of a checkpoint without some units: Adam's moments of the weights that are left are kept,
    where there are moments.
    """
    if not origin.has_moments:
        state = origin.state_of_weights()
        return replace(state, model=prune(state.model, kept, means))
    state = origin.train_state(paper_adam())
    assert isinstance(state.optimizer, optax.ScaleByAdamState)
    # What removed units gave to the biases is a change of the weights, not of the moments of their gradients.
    nothing = tuple(np.zeros_like(mean) for mean in means)
    mu, nu = (prune(moments, kept, nothing) for moments in (state.optimizer.mu, state.optimizer.nu))  # pyright: ignore[reportArgumentType]
    return replace(state, model=prune(state.model, kept, means), optimizer=state.optimizer._replace(mu=mu, nu=nu))


def _write_model(
    source: Run,
    out: Run,
    origin: Checkpoint,
    state: TrainState,
    kept: tuple[np.ndarray, ...],
    figures: PruningFigures,
) -> PrunedRecord:
    """Writes the pruned checkpoint, the metrics up to it and a first record, whose new part is returned."""
    architecture = replace(origin.architecture, latent=state.model.latent)
    save_checkpoint(
        out.checkpoint_path(origin.stages_done),
        state,
        architecture=architecture,
        seed=origin.seed,
        stages_done=origin.stages_done,
        seconds=origin.seconds,
        weights_alone=not origin.has_moments,
    )
    out.metrics.write(source.metrics.lines(origin.step))
    left = _left_of_the_first(kept_units(source), kept)
    pruned: PrunedRecord = {
        **figures,
        "source": str(source.path.resolve()),
        "checkpoint": origin.path.name,
        "weights_sha256": origin.weights_digest(),
        "units": [len(mask) for mask in left],
        "kept_units": [np.flatnonzero(mask).tolist() for mask in left],
    }
    if "pruned" in source.record:
        pruned["source_pruned"] = source.record["pruned"]
    out.write_record({**source.record, "architecture": architecture.to_json(), "pruned": pruned})
    return pruned


def _left_of_the_first(before: tuple[np.ndarray, ...] | None, kept: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Which units of the model that was never pruned are left, after this pruning and those `before`."""
    if before is not None:
        for mask, still in zip(before, kept, strict=True):
            mask[np.flatnonzero(mask)] = still
    return before or kept
