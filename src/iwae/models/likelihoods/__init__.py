"""Kinds of visible data, by name. A new one is a file here and a line in `LIKELIHOODS`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from iwae.data.columns import Column
from iwae.data.dataset import Dataset, Split
from iwae.data.disk_rows import pieces_of, sample_of
from iwae.errors import IWAEError
from iwae.models.likelihoods.base import Likelihood, VisibleLayer, has_missing
from iwae.models.likelihoods.bernoulli import BernoulliLikelihood
from iwae.models.likelihoods.categorical import CategoricalLikelihood
from iwae.models.likelihoods.continuous_bernoulli import ContinuousBernoulliLikelihood
from iwae.models.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from iwae.models.likelihoods.discretized_logistic import DiscretizedLogisticLikelihood
from iwae.models.likelihoods.exposure import ExposureLikelihood
from iwae.models.likelihoods.gaussian import GaussianLikelihood
from iwae.models.likelihoods.mixed import MixedLikelihood
from iwae.models.likelihoods.student_t import StudentTLikelihood
from iwae.models.likelihoods.zero_inflated import ZeroInflatedNegativeBinomialLikelihood

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": BernoulliLikelihood,
    "gaussian": GaussianLikelihood,
    "student-t": StudentTLikelihood,
    "poisson": PoissonLikelihood,
    "negative-binomial": NegativeBinomialLikelihood,
    "zero-inflated-negative-binomial": ZeroInflatedNegativeBinomialLikelihood,
    "categorical": CategoricalLikelihood,
    "discretized-logistic": DiscretizedLogisticLikelihood,
    "continuous-bernoulli": ContinuousBernoulliLikelihood,
    "mixed": MixedLikelihood,
    "exposure": ExposureLikelihood,
}


def likelihood_of(dataset: Dataset) -> Likelihood:
    """The likelihood that a dataset asks for: its own object, or one by name, made from its training rows.

    Raises IWAEError for an unknown name, and for rows that it can't score.
    """
    wanted = dataset.likelihood
    if isinstance(wanted, Likelihood):
        made = wanted
    else:
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        unknown = [name for name in names if name not in LIKELIHOODS]
        if unknown:
            raise IWAEError(f"`likelihood` must be one of {', '.join(LIKELIHOODS)}, or an object, got {unknown[0]!r}")
        train = sample_of(dataset.train)
        # What no likelihood scores is refused before one is made of it.
        Likelihood(missing=True).check(train, f"train split of {dataset.name}")
        if not isinstance(wanted, str) and len(names) != dataset.dim:
            raise IWAEError(f"`likelihood` names {len(names)} kinds, but {dataset.name} has {dataset.dim} columns")
        levels = [len(column.levels) for column in dataset.columns]
        if "categorical" in names and not any(levels):
            pieces = (piece for name in SPLITS for piece in pieces_of(dataset.split(name)) if len(piece))
            largest = [np.nan_to_num(piece).max(axis=0) for piece in pieces]
            levels = (np.max(largest, axis=0) + 1).astype(int).tolist()
        if len(set(names)) == 1 and names[0] != "exposure":
            how: dict[str, Any] = {"scale": dataset.scale, "binary": dataset.binary, "levels": levels}
            made = LIKELIHOODS[names[0]].of_data(train, **how)
        else:
            made = MixedLikelihood.of_kinds([LIKELIHOODS[name] for name in names], train, levels)
    for name in SPLITS:
        for piece in pieces_of(dataset.split(name)):
            if not made.missing and has_missing(piece):
                made = replace(made, missing=True)
            _check(made, piece, f"{name} split of {dataset.name}", dataset.columns)
    return made


def _check(likelihood: Likelihood, rows: np.ndarray, what: str, columns: Sequence[Column]) -> None:
    """`Likelihood.check`, whose error says which of the columns it is."""
    try:
        likelihood.check(rows, what)
    except IWAEError:
        for place, column in enumerate(columns):
            try:
                likelihood.of_column(place).check(rows[:, [place]], f"column {column.name!r} of the {what}")
            except IWAEError as error:
                # Another kind is advised for this column alone.
                raise IWAEError(str(error).replace("`likelihood` ", f"`likelihood` {column.name}=")) from None
        raise


def likelihood_from_json(record: Mapping[str, Any]) -> Likelihood:
    """Inverse of `Likelihood.to_json`. Raises IWAEError for what no likelihood of this library wrote."""
    name = record.get("name")
    if not isinstance(name, str) or name not in LIKELIHOODS:
        raise IWAEError(f"the likelihood {name!r:.50} is none of {', '.join(LIKELIHOODS)}: load into a model of yours")
    return LIKELIHOODS[name].from_json({key: value for key, value in record.items() if key != "name"})


__all__ = [
    "LIKELIHOODS",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulliLikelihood",
    "DiscretizedLogisticLikelihood",
    "ExposureLikelihood",
    "GaussianLikelihood",
    "Likelihood",
    "MixedLikelihood",
    "NegativeBinomialLikelihood",
    "PoissonLikelihood",
    "StudentTLikelihood",
    "VisibleLayer",
    "ZeroInflatedNegativeBinomialLikelihood",
    "likelihood_from_json",
    "likelihood_of",
]
