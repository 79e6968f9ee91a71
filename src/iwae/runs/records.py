"""What the JSON files of a run hold, as types against which they are read, and the checks that types can't express.

Fields that older versions did not write, or that nothing reads, are `NotRequired`. A figure that does not exist (the
standard error of one example, a likelihood of zero) is null.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, TypeVar

from msgspec import Meta

from iwae.data import Split
from iwae.errors import IWAEError
from iwae.io.json import Count, Positive, Real, Seconds, read_json
from iwae.models.architecture import MAX_UNITS, Architecture, ArchitectureRecord
from iwae.runs.config import RunConfig
from iwae.runs.data import DataRecord, Integer, check_data

MAX_PRUNINGS = 50

ConfigRecord = dict[str, bool | Integer | Real | str | list[Integer | str] | None]
"""`RunConfig.to_json()`; `RunConfig.from_json` checks the fields."""


class StageRecord(TypedDict):
    """A `Stage` of a schedule."""

    epochs: Positive
    learning_rate: Real
    final_learning_rate: NotRequired[Real]


class SourceRecord(TypedDict):
    """The run that another was started from: its directory, configuration and checkpoint."""

    run: str
    config: ConfigRecord
    checkpoint: str
    stages_done: Count
    step: Count
    weights_sha256: str


class PruningFigures(TypedDict):
    """Test NLL in nats before and after pruning, from the same noise: null until it is measured. `kept_inactive` are
    the numbers, from 1, of layers whose one unit is inactive.
    """

    nll_before: Real | None
    nll_after: Real | None
    difference: Real | None
    difference_stderr: Real | None
    num_samples: Positive
    num_examples: Positive
    split_examples: Positive
    kept_inactive: list[Positive]


class PrunedRecord(PruningFigures):
    """What was removed from which run: per layer the units of the model that was never pruned, and the indices of
    those that are left. `source_pruned` is the source's own record of this kind, where that was pruned too.
    """

    source: str
    checkpoint: str
    weights_sha256: str
    units: list[Annotated[int, Meta(ge=1, le=MAX_UNITS)]]
    kept_units: list[list[Count]]
    source_pruned: NotRequired["PrunedRecord"]


class RunRecord(TypedDict):
    """`run.json`."""

    format: Count
    config: ConfigRecord
    architecture: ArchitectureRecord
    schedule: Annotated[list[StageRecord], Meta(min_length=1, max_length=1000)]
    data: DataRecord
    versions: NotRequired[dict[str, str]]
    init_from: NotRequired[SourceRecord]
    pruned: NotRequired[PrunedRecord]


class MetricsLine(TypedDict):
    """A line of `metrics.jsonl`: `stage` counts from 0, `epoch` and `step` are numbers done. `bound` is the epoch's
    mean on training examples and `valid_bound` the model's at its end on validation examples, in nats: before 0.2, and
    without such examples, there is none.
    """

    stage: Count
    epoch: Positive
    step: Positive
    learning_rate: Real
    bound: Real
    valid_bound: NotRequired[Real]


class WeightsFigures(TypedDict):
    """What the draws of L_k, `num_samples` of them, say of its distance to log p(x); versions before 0.2 did not write
    it. `delta` is the delta method's estimate of the distance in nats (`iwae.evaluation.likelihood.Likelihoods`),
    `jvi2_nll` the NLL by JVI-2; of Pareto k-hat there are the median over examples and the share of them above 0.7. A
    figure that the values on disk don't tell is null.
    """

    num_samples: Positive
    delta: NotRequired[Real | None]
    jvi2_nll: NotRequired[Real | None]
    pareto_k_median: NotRequired[Real | None]
    pareto_k_above: NotRequired[Real | None]


class OfWeights(TypedDict):
    """What every measurement's record has: the digest of the weights that it is of."""

    weights_sha256: str


class Measured(WeightsFigures):
    """-L_k of the first `num_examples` of a split's `split_examples`, in nats."""

    nll: Real | None
    stderr: Real | None
    num_examples: Positive
    split_examples: Positive
    mean_effective_sample_size: NotRequired[Real | None]
    seed: NotRequired[Count]
    evaluation: NotRequired[str]


class EvaluationRecord(Measured):
    """A JSON file in `evaluations/`; the `.npz` of the same name has the values of every example."""

    split: Split
    weights_sha256: str
    data: DataRecord
    checkpoint: NotRequired[str]
    step: NotRequired[Count]
    versions: NotRequired[dict[str, str]]
    device: NotRequired[str]
    seconds: NotRequired[Seconds]


class Made(TypedDict):
    """How long a measurement took, and what made it, where that is not this process alone."""

    seconds: Seconds
    versions: NotRequired[dict[str, str]]
    device: NotRequired[str]


class Provenance(TypedDict):
    """What a measurement is of, and what made it, as `runs.evaluate.provenance` has them."""

    checkpoint: str
    step: Count
    weights_sha256: str
    data: DataRecord
    versions: dict[str, str]
    device: str
    seconds: Seconds


class AnnealedRecord(Provenance):
    """A JSON file in `evaluations/` of annealed importance sampling: the NLL of a split's first examples in nats, with
    its standard error over examples (and chains), and that over chains alone.
    """

    method: Literal["ais"]
    split: Split
    nll: Real | None
    stderr: Real | None
    chain_stderr: Real | None
    num_examples: Positive
    split_examples: Positive
    chains: Positive
    steps: Positive
    leapfrogs: Positive
    start: Literal["encoder", "prior"]
    seed: Count
    acceptance: Real | None
    mean_effective_sample_size: Real | None


class ResultSeconds(TypedDict):
    """Time taken."""

    training: Seconds
    measuring: Seconds


class ResultFiles(TypedDict):
    """Paths below the run's directory."""

    samples: str
    sample_values: str
    per_example: str
    metrics: str


class ResultsRecord(TypedDict):
    """`results.json`. `active_units` counts the active units of each layer, h_1 first."""

    config: ConfigRecord
    architecture: ArchitectureRecord
    data: DataRecord
    stages_done: Count
    stages_total: Count
    epochs: Count | None
    step: Count
    train_bound: NotRequired[Real | None]
    test: Measured
    active_units: list[Count]
    active_units_paper_code: list[Count]
    seconds: ResultSeconds
    checkpoint: str
    weights_sha256: str
    files: ResultFiles
    seed: NotRequired[Count]
    versions: NotRequired[dict[str, str]]
    device: NotRequired[str]


class GapRecord(TypedDict):
    """Test NLL minus training NLL, in nats."""

    value: Real | None
    stderr: Real | None


class GapAnalysis(TypedDict):
    """The part of `analysis.json` that the paper's tables use."""

    weights_sha256: str
    test: Measured
    train: Measured
    gap: GapRecord


class LayerRecord(TypedDict):
    """A stochastic layer, from 1: units, active ones by two counts, and every unit's variance."""

    layer: Positive
    units: Positive
    active: Count
    active_paper_code: Count
    variances: list[Real | None]


Quantiles = TypedDict(
    "Quantiles",
    {
        "0": Real | None,
        "0.01": Real | None,
        "0.05": Real | None,
        "0.25": Real | None,
        "0.5": Real | None,
        "0.75": Real | None,
        "0.95": Real | None,
        "0.99": Real | None,
        "1": Real | None,
    },
)


class DistributionRecord(TypedDict):
    """Quantiles of what test examples have, with so many samples each."""

    examples: Positive
    num_samples: Positive
    quantiles: Quantiles


class LogWeightsRecord(DistributionRecord):
    """Of log w relative to the example's mean weight, in nats."""

    weight_above_mean: Real | None


class EffectiveSampleSizeRecord(DistributionRecord):
    """Of the effective sample size."""

    mean: Real | None


class AnalysisRecord(GapAnalysis):
    """`analysis/analysis.json`; see `report.analyze`. `pictures` are names of files beside it."""

    format: Count
    config: ConfigRecord
    data: DataRecord
    architecture: ArchitectureRecord
    checkpoint: str
    stages_done: Count
    stages_total: Count
    epochs: Count
    step: Count
    training_seconds: Seconds
    train_bound: Real | None
    layers: Annotated[list[LayerRecord], Meta(min_length=1)]
    log_weights: LogWeightsRecord
    effective_sample_size: EffectiveSampleSizeRecord
    pictures: dict[str, str]
    skipped: dict[str, str]
    device: str
    samples: NotRequired[Positive | None]
    examples: NotRequired[Positive | None]
    active_threshold: NotRequired[Real]
    arrays: NotRequired[str]
    seconds: NotRequired[Seconds]
    versions: NotRequired[dict[str, str]]


T = TypeVar("T", bound=Mapping[str, Any])


def read_checked(path: Path, kind: type[T], advice: str, newest_format: int | None = None) -> T:
    """A record of type `kind` from a file, whose parts fit together.

    Raises IWAEError, naming the file and giving `advice`, for anything else, and for a newer format.
    """
    record = read_json(path, kind, advice, newest_format)
    try:
        check(record)
    except IWAEError as error:
        raise IWAEError(f"{path}: {error}; {advice}") from None
    return record


def measured_enough(measured: Measured, samples: int, examples: int | None) -> bool:
    """Whether at least `samples` importance samples were drawn for at least `examples` examples, or for all of the
    split where it has fewer or None is given.
    """
    total = measured["split_examples"]
    wanted = total if examples is None else min(examples, total)
    return measured["num_samples"] >= samples and measured["num_examples"] >= wanted


def check(record: Mapping[str, Any]) -> None:
    """Raises IWAEError where the parts of a record, of whatever type above, contradict each other: then one of them is
    not what this program wrote, and what is computed from them would be wrong or fail.
    """
    if "config" in record:
        _check_config(RunConfig.from_json(record["config"]), record)
    if "data" in record:
        check_data(record["data"])
    if "architecture" in record:
        architecture = Architecture.from_json(record["architecture"])
        if architecture.visible != record["data"]["dim"]:
            raise IWAEError(f"a model of {architecture.visible} dimensions on data of {record['data']['dim']}")
        if "pruned" in record:
            _check_pruned(record["pruned"], architecture)


def _check_config(config: RunConfig, record: Mapping[str, Any]) -> None:
    if "schedule" not in record:
        return
    if (config.init_from is None) != ("init_from" not in record):
        raise IWAEError("the configuration and the record disagree on whether it started from another run")
    if "init_from" in record:
        RunConfig.from_json(record["init_from"]["config"])


def _check_pruned(pruned: PrunedRecord, architecture: Architecture) -> None:
    """Which units are left is said in numbers that become sizes and indices of arrays."""
    sizes, record, depth = architecture.latent, pruned, 0
    while record is not None:
        units, kept = record["units"], record["kept_units"]
        if len(units) != len(kept) or len(units) != len(sizes):
            raise IWAEError(f"pruned: {len(units)} and {len(kept)} layers of units, the model has {len(sizes)}")
        for total, indices in zip(units, kept, strict=True):
            if not indices or indices[-1] >= total or any(one >= other for one, other in pairwise(indices)):
                raise IWAEError(f"pruned: what is left of {total} units is not a list of ascending indices below that")
        if record is pruned and tuple(map(len, kept)) != sizes:
            raise IWAEError(
                f"pruned: {'+'.join(str(len(indices)) for indices in kept)} units are left, the model has"
                f" {'+'.join(map(str, sizes))}"
            )
        record, depth = record.get("source_pruned"), depth + 1
        if depth > MAX_PRUNINGS:
            raise IWAEError(f"pruned: more than {MAX_PRUNINGS} times, one after another")
