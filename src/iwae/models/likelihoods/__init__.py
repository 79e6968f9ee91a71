"""Kinds of visible data, by name. A new one is a file here and a line in `LIKELIHOODS`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from iwae.data.dataset import Dataset
from iwae.errors import IWAEError
from iwae.models.likelihoods.base import Likelihood, VisibleLayer
from iwae.models.likelihoods.bernoulli import BernoulliLikelihood
from iwae.models.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from iwae.models.likelihoods.gaussian import GaussianLikelihood
from iwae.models.likelihoods.student_t import StudentTLikelihood

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": BernoulliLikelihood,
    "gaussian": GaussianLikelihood,
    "student-t": StudentTLikelihood,
    "poisson": PoissonLikelihood,
    "negative-binomial": NegativeBinomialLikelihood,
}


def likelihood_of(dataset: Dataset) -> Likelihood:
    """The likelihood that a dataset asks for: its own object, or one by name, made from its training rows.

    Raises IWAEError for an unknown name, and for rows that it can't score.
    """
    wanted = dataset.likelihood
    if isinstance(wanted, Likelihood):
        made = wanted
    else:
        if wanted not in LIKELIHOODS:
            raise IWAEError(f"`likelihood` must be one of {', '.join(LIKELIHOODS)}, or an object, got {wanted!r}")
        # What no likelihood scores is refused before one is made of it.
        Likelihood(missing=True).check(np.asarray(dataset.train), f"train split of {dataset.name}")
        made = LIKELIHOODS[wanted].of_data(dataset.train, scale=dataset.scale, binary=dataset.binary)
    for name in ("train", "valid", "test"):
        made.check(np.asarray(dataset.split(name)), f"{name} split of {dataset.name}")
    return made


def likelihood_from_json(record: Mapping[str, Any]) -> Likelihood:
    """Inverse of `Likelihood.to_json`. Raises IWAEError for what no likelihood of this library wrote."""
    name = record.get("name")
    if not isinstance(name, str) or name not in LIKELIHOODS:
        raise IWAEError(f"the likelihood {name!r:.50} is none of {', '.join(LIKELIHOODS)}: load into a model of yours")
    return LIKELIHOODS[name].from_json({key: value for key, value in record.items() if key != "name"})


__all__ = [
    "LIKELIHOODS",
    "BernoulliLikelihood",
    "GaussianLikelihood",
    "Likelihood",
    "NegativeBinomialLikelihood",
    "PoissonLikelihood",
    "StudentTLikelihood",
    "VisibleLayer",
    "likelihood_from_json",
    "likelihood_of",
]
