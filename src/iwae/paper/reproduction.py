"""Whether a run is what the paper did, and what the paper published for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from iwae.data import Mark
from iwae.paper.cells import OVERFITTING, Published, cells_of, published
from iwae.runs.config import RunConfig
from iwae.runs.records import AnalysisRecord, ResultsRecord, RunRecord, SourceRecord
from iwae.training.schedule import SCHEDULES, WARM_START, schedule_to_json

PAPER_SAMPLES = 5000
PAPER_STAGES = len(SCHEDULES["paper"])
PAPER_EPOCHS = sum(stage.epochs for stage in SCHEDULES["paper"])

MeasuredRun = AnalysisRecord | ResultsRecord
FindPublished = Callable[[str, str, int, int], Published | None]
"""(dataset, model, k, layers) -> the paper's result for a model trained from random weights, or None."""


def published_for(
    config: RunConfig, record: RunRecord, measured: MeasuredRun, find: FindPublished = published
) -> Published | None:
    """The paper's result for this model, or None: for other networks, other data, and data that are not verified
    to be the paper's. `record` is the run's `run.json`.
    """
    if config.latent or not trained_as_in_the_paper(config) or measured["data"]["mark"] != "verified":
        return None
    assert config.model is not None
    assert config.layers is not None
    if config.init_from is None or "init_from" not in record:
        return find(config.dataset, config.model, config.k, config.layers)
    source = RunConfig.from_json(record["init_from"]["config"])
    for cell in cells_of("2", results_dir=Path()):
        if cell.source is not None and _model(cell.config) == _model(config) and _model(cell.source) == _model(source):
            return cell.published
    return None


def trained_as_in_the_paper(config: RunConfig) -> bool:
    """Whether objective, estimator and kind of latents are the paper's: they are what `--model` and `--k` give."""
    if config.model is None or config.latent_kind != "gaussian":
        return False
    return config.objective == RunConfig.of(model=config.model, k=config.k).objective


def _model(config: RunConfig) -> tuple[Any, ...]:
    return config.dataset, config.model, config.k, config.layers, config.latent


def deviations(config: RunConfig, record: RunRecord, measured: MeasuredRun) -> list[str]:
    """In what a run and its measurement differ from what the paper did, in words; empty: in nothing.

    `record` is the run's `run.json`, `measured` what was found out about it: its `analysis.json` or its
    `results.json`.
    """
    start = record.get("init_from")
    found = (
        _schedule_deviations(config, record, measured)
        if start is None
        else _warm_start_deviations(config, start, measured)
    )
    if "pruned" in record:
        found.append("its inactive units were removed")
    if config.latent or config.latent_kind != "gaussian":
        found.append("its network is not one of the paper's")
    if not trained_as_in_the_paper(config):
        found.append("its objective, or the estimator of its gradient, is not the paper's")
    if config.batch_size != 20:
        found.append(f"its minibatches had {config.batch_size} examples, not 20")
    if config.recipe.optimizer != "Adam":
        found.append(f"its optimizer was {config.recipe.optimizer}, not the Adam of the paper's code")
    if config.schedule == "paper" and config.adam_moments != "delayed":
        found.append("Adam's moments were current, not those before each gradient, as in the paper's code")
    if config.beta1 != 0.99:
        found.append(f"{config.recipe.optimizer}'s beta1 was {config.beta1:g}, not the 0.99 of the paper's code")
    if config.patience is not None:
        found.append(f"it was to end once the validation bound had not risen for {config.patience} epochs")
    if config.precision != "float32":
        found.append(f"its matrix products were of {config.precision} operands")
    if measured["data"]["mark"] == "own":
        found.append("its data are not the paper's")
    elif measured["data"]["mark"] != "verified":
        found.append("its data are not verified to be the paper's")
    elif not config.latent and published_for(config, record, measured) is None:
        found.append("the paper has no result for this model on this data")
    test = measured["test"]
    if test["num_examples"] != test["split_examples"]:
        found.append(f"only {test['num_examples']:,} of {test['split_examples']:,} test examples were measured")
    if test["nll"] is None:
        found.append("its likelihood is not finite")
    if test["num_samples"] != PAPER_SAMPLES:
        found.append(f"the likelihood was measured with {test['num_samples']:,} samples, not {PAPER_SAMPLES:,}")
    return found


def _schedule_deviations(config: RunConfig, record: RunRecord, measured: MeasuredRun) -> list[str]:
    epochs, stages = measured["epochs"] or 0, measured["stages_done"]
    if config.schedule != "paper":
        return [
            f"it was trained for {epochs:,} epochs of the {config.schedule} schedule, not the paper's {PAPER_EPOCHS:,}"
        ]
    if record["schedule"] != schedule_to_json(SCHEDULES["paper"]):
        return [f"it was trained for {epochs:,} epochs of another schedule than the paper's {PAPER_EPOCHS:,}"]
    if stages < PAPER_STAGES:
        return [
            f"it was trained through {stages} of the paper's {PAPER_STAGES} stages"
            f" ({epochs:,} of {PAPER_EPOCHS:,} epochs)"
        ]
    return []


def _warm_start_deviations(config: RunConfig, start: SourceRecord, measured: MeasuredRun) -> list[str]:
    """Table 2 goes on from runs of the whole protocol, for 2187 epochs, with their optimizer's moments."""
    found = []
    if (config.epochs, config.learning_rate) != (WARM_START.epochs, WARM_START.learning_rate):
        found.append(
            f"it was to be trained on for {config.epochs:,} epochs at learning rate {config.learning_rate:g}, not the"
            f" paper's {WARM_START.epochs:,} at {WARM_START.learning_rate:g}"
        )
    if measured["stages_done"] < 1:
        found.append(f"it was trained on for only {measured['epochs'] or 0:,} of its {config.epochs:,} epochs")
    if config.fresh_optimizer:
        found.append("the optimizer's moments were not kept")
    source = RunConfig.from_json(start["config"])
    plain = RunConfig.of(dataset=source.dataset, model=source.model, k=source.k, layers=source.layers, seed=source.seed)
    if source != plain or start["stages_done"] < PAPER_STAGES:
        found.append(
            f"the run that it started from had not followed the paper's protocol to its end"
            f" ({start['stages_done']} stages done)"
        )
    return found


def paper_gap(name: str, mark: Mark) -> float | None:
    """The largest gap between test and training NLL, in nats, that the paper reports on data of this name, or None;
    `mark` says whether they are its data.
    """
    return OVERFITTING.get(name) if mark == "verified" else None
