"""Every picture of an analysis, from what was found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from iwae.data import Dataset
from iwae.evaluation import importance_weights
from iwae.evaluation.active_units import ACTIVE_THRESHOLD
from iwae.evaluation.likelihood import Likelihoods
from iwae.figures import charts, pictures
from iwae.models.distributions import Bernoulli
from iwae.models.vae import HierarchicalVAE
from iwae.runs.records import MetricsLine, StageRecord

GRID = 100
RECONSTRUCTIONS = 50
TRAVERSED_UNITS = 25
TRAVERSED_VALUES = (-3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3)
# Between its two values, a binary unit's probability: what the layers below are given then is a mean.
TRAVERSED_PROBABILITIES = (0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1)


@dataclass(frozen=True)
class Findings:
    """What the pictures show: a model with its data, and what was measured of it.

    `variances` `[units]` per layer; `relative_log_weights` `[examples, k]` (see
    `importance_weights.relative_log_weights`); `metrics` are the lines of metrics.jsonl up to this checkpoint;
    `schedule` the run's recorded stages.
    """

    model: HierarchicalVAE
    dataset: Dataset
    variances: tuple[np.ndarray, ...]
    relative_log_weights: np.ndarray
    likelihoods: Likelihoods
    metrics: list[MetricsLine]
    schedule: list[StageRecord]
    name: str


class _NothingToShow(Exception):
    """Why a picture is missing."""


def draw(findings: Findings) -> tuple[dict[str, bytes], dict[str, str]]:
    """PNG files by name, and for every picture that there can't be, the reason."""
    made, skipped = {}, {}
    for kind, make in _PICTURES.items():
        try:
            made[f"{kind}.png"] = make(findings)
        except _NothingToShow as reason:
            skipped[kind] = str(reason)
    return made, skipped


def training_curve(name: str, metrics: list[MetricsLine], schedule: list[StageRecord]) -> charts.Curve | None:
    """The bound per epoch; None before the first epoch."""
    if not metrics:
        return None
    ends = [int(end) for end in np.cumsum([stage["epochs"] for stage in schedule])]
    return charts.Curve(name, [line["epoch"] for line in metrics], [line["bound"] for line in metrics], ends)


def traversed_units(variances: np.ndarray) -> np.ndarray:
    """Indices of the active units, the largest variance first, at most 25 of them."""
    order = np.argsort(-variances, kind="stable")
    return order[variances[order] > ACTIVE_THRESHOLD][:TRAVERSED_UNITS]


def _image_shape(findings: Findings) -> tuple[int, int]:
    if findings.dataset.image_shape is None:
        raise _NothingToShow("the data are vectors, not images")
    return findings.dataset.image_shape


def _samples(findings: Findings) -> bytes:
    return pictures.sample_grid(importance_weights.samples(findings.model, GRID), _image_shape(findings))


def _reconstructions(findings: Findings) -> bytes:
    shape = _image_shape(findings)
    originals, decoded = importance_weights.reconstructions(
        findings.model, findings.dataset, num_examples=RECONSTRUCTIONS
    )
    return pictures.reconstruction_grid(originals, decoded, shape)


def _weights(of: Callable[[HierarchicalVAE], np.ndarray | None]) -> Callable[[Findings], bytes]:
    def make(findings: Findings) -> bytes:
        shape, weights = _image_shape(findings), of(findings.model)
        if weights is None:
            raise _NothingToShow("the network is not a tanh network")
        return pictures.weight_grid(importance_weights.by_norm(weights, GRID), shape)

    return make


def _traversals(findings: Findings) -> bytes:
    shape = _image_shape(findings)
    variances = findings.variances[-1]
    units = traversed_units(variances)
    if not len(units):
        raise _NothingToShow("no unit of the top layer is active")
    values = TRAVERSED_PROBABILITIES if isinstance(findings.model.prior, Bernoulli) else TRAVERSED_VALUES
    images = importance_weights.traverse(findings.model, [int(unit) for unit in units], values)
    labels = [f"{unit} ({variances[unit]:.2f})" for unit in units]
    return charts.traversal_chart(images, shape, values, labels)


def _log_variances(findings: Findings) -> bytes:
    return charts.log_variance_chart(findings.variances)


def _log_weights(findings: Findings) -> bytes:
    if not np.isfinite(findings.relative_log_weights).any():
        raise _NothingToShow("no weight is finite")
    return charts.log_weight_chart(findings.relative_log_weights)


def _effective_sample_size(findings: Findings) -> bytes:
    values: Sequence[float] | np.ndarray = findings.likelihoods.effective_sample_size
    return charts.effective_sample_size_chart(np.asarray(values), findings.likelihoods.num_samples)


def _training_curve(findings: Findings) -> bytes:
    curve = training_curve(findings.name, findings.metrics, findings.schedule)
    if curve is None:
        raise _NothingToShow("no epoch has been trained yet")
    return charts.training_chart([curve])


_PICTURES: dict[str, Callable[[Findings], bytes]] = {
    "training_curve": _training_curve,
    "samples": _samples,
    "reconstructions": _reconstructions,
    "log_variances": _log_variances,
    "traversals": _traversals,
    "log_weights": _log_weights,
    "effective_sample_size": _effective_sample_size,
    "encoder_weights": _weights(importance_weights.first_encoder_weights),
    "decoder_weights": _weights(importance_weights.last_decoder_weights),
}
