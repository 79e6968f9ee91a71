"""The estimator that an objective names."""

from dataclasses import replace

from jax.tree_util import Partial

from iwae import bounds
from iwae.estimators.base import Estimator, WeightedEstimator
from iwae.estimators.bound import (
    Bound,
    DoublyReparameterized,
    OfBound,
    Reparameterized,
    ScoreFunction,
    StickingTheLanding,
)
from iwae.estimators.importance_weighted import PIWAE, DReGAlpha, PIWAEDReG
from iwae.estimators.mixed_precision import InBFloat16
from iwae.estimators.objective import Objective
from iwae.estimators.score import OVIS, VIMCO, ReweightedWakeSleep
from iwae.models.architecture import Precision


def make_estimator(objective: Objective, precision: Precision = "float32") -> Estimator:
    """The estimator that an `Objective` names, with its matrix products in that precision."""
    estimator = replace(_with_all_samples(objective), num_backward=objective.backward)
    return InBFloat16(estimator) if precision == "bfloat16" else estimator


def _with_all_samples(objective: Objective) -> WeightedEstimator:
    k, chosen = objective.k, objective.estimator
    match objective.name:
        case "rws" if chosen == "score":
            assert objective.sleep is not None
            return ReweightedWakeSleep(k, objective.sleep)
        case "rws":
            return DReGAlpha(k, 1.0)
        case "piwae":
            assert objective.m is not None
            return (PIWAE if chosen == "reparameterized" else PIWAEDReG)(objective.m * k, objective.m)
        case "vimco":
            return VIMCO(k)
        case "ovis":
            assert objective.gamma is not None
            return OVIS(k, objective.gamma)
        case "iwae" if chosen == "dreg":
            assert objective.alpha is not None
            return DReGAlpha(k, objective.alpha)
    kinds: dict[str, type[OfBound]] = {
        "reparameterized": Reparameterized,
        "stl": StickingTheLanding,
        "dreg": DoublyReparameterized,
        "score": ScoreFunction,
    }
    assert chosen is not None
    groups = objective.m or 1
    return kinds[chosen](groups * k, bound_of(objective), groups)


def bound_of(objective: Objective) -> Bound:
    """The function of log weights `[k, batch]` whose gradient is estimated; miwae's is that of one group."""
    match objective.name:
        case "ciwae":
            return Partial(bounds.ciwae, beta=objective.beta)
        case "renyi":
            return Partial(bounds.renyi, alpha=objective.alpha)
        case "elbo":
            return bounds.elbo
        case "vr-max":
            return bounds.vr_max
        case "jvi":
            return bounds.jvi
        case _:
            return bounds.iwae
