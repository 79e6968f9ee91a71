"""The one table of objectives and of the estimators of their gradients. A new estimator is a file in this folder and a
row here, or a method in the row of an objective that is there.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from iwae.estimators.parameters import (
    CIWAE_BETA,
    DREG_ALPHA,
    FIRST_BETA,
    FREE_BITS,
    GAMMA,
    PARTITIONS,
    RENYI_ALPHA,
    SLEEP,
    VAE_BETA,
    WARM_UP,
    M,
    Number,
    Parameter,
)


@dataclass(frozen=True)
class Method:
    """An estimator's class, `name` in the module `iwae.estimators.<module>`, and what it is made with: the bound that
    it differentiates (`of_bound`), its own `parameters`, `fixed` arguments; and the fewest samples that it needs.
    """

    module: str
    name: str
    of_bound: bool = False
    parameters: tuple[Parameter, ...] = ()
    fixed: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    least_samples: int = 1


@dataclass(frozen=True)
class Row:
    """An objective: its name in tables, what it is in a sentence (a format of k, m and its parameters), the methods of
    estimating its gradient (the first is the default), the function in `iwae.bounds` that `of_bound` methods take,
    the parameters that all methods share, the fewest samples that it needs, and its name in names of runs.
    """

    words: str
    sentence: str
    methods: Mapping[str, Method]
    bound: str | None = None
    parameters: tuple[Parameter, ...] = ()
    least_samples: int = 1
    run_name: str | None = None


METHOD_WORDS = {
    "reparameterized": "reparameterized",
    "stl": "STL",
    "dreg": "DReG",
    "gdreg": "GDReG",
    "rws-dreg": "DReG",
    "score": "score function",
    "rloo": "RLOO",
    "disarm": "DisARM",
}
# Those that differentiate through samples need Gaussian latents; these do not.
BY_SCORE = ("score", "rloo", "disarm")
# Those that need one layer of binary latents.
ONE_BINARY_LAYER = ("disarm",)
# Other names of an objective, in the papers that study it.
ALIASES = {"vr-iwae": "renyi"}
_OF_BOUNDS = {
    "reparameterized": Method("bound", "Reparameterized", of_bound=True),
    "stl": Method("bound", "StickingTheLanding", of_bound=True),
    "dreg": Method("bound", "DoublyReparameterized", of_bound=True),
    "gdreg": Method("generalized", "GeneralizedDoublyReparameterized", of_bound=True),
    "score": Method("bound", "ScoreFunction", of_bound=True),
    "disarm": Method("disarm", "DisARM", of_bound=True),
}

OBJECTIVES: dict[str, Row] = {
    "elbo": Row(
        "VAE",
        "the variational bound: the average of {k} log weights",
        {**_OF_BOUNDS, "rloo": Method("score", "LeaveOneOut", least_samples=2)},
        bound="elbo",
        run_name="vae",
    ),
    "iwae": Row(
        "IWAE",
        "the importance weighted bound L_{k}: the log of the average of {k} weights",
        {**_OF_BOUNDS, "dreg": Method("importance_weighted", "DReGAlpha", parameters=(DREG_ALPHA,))},
        bound="iwae",
    ),
    "miwae": Row(
        "MIWAE",
        "multiply importance weighted (not the method for missing data of that name): the average of {m} bounds L_{k}",
        _OF_BOUNDS,
        bound="iwae",
        parameters=(M,),
    ),
    "ciwae": Row(
        "CIWAE",
        "CIWAE: {beta} of the variational bound and the rest of L_{k}, from the same {k} weights",
        _OF_BOUNDS,
        bound="ciwae",
        parameters=(CIWAE_BETA,),
    ),
    "renyi": Row(
        "VR-alpha",
        "the variational Rényi bound with alpha = {alpha}, from {k} weights",
        _OF_BOUNDS,
        bound="renyi",
        parameters=(RENYI_ALPHA,),
    ),
    "vr-max": Row(
        "VR-max",
        "the largest of {k} log weights",
        # The largest weight's slope jumps from 0 to 1: there is no second derivative that DReG could be made of.
        {name: method for name, method in _OF_BOUNDS.items() if name not in ("dreg", "gdreg")},
        bound="vr_max",
    ),
    "jvi": Row("JVI-1", "JVI-1: the jackknife's correction of L_{k}", _OF_BOUNDS, bound="jvi", least_samples=2),
    "tvo": Row(
        "TVO",
        "the thermodynamic variational objective over {partitions} intervals, from {k} weights",
        {**_OF_BOUNDS, "score": Method("score", "ThermodynamicScore")},
        bound="tvo",
        parameters=(PARTITIONS, FIRST_BETA),
    ),
    "tvo-moments": Row(
        "TVO (moments)",
        "the thermodynamic variational objective over {partitions} intervals of equal growth, from {k} weights",
        _OF_BOUNDS,
        bound="tvo_moments",
        parameters=(PARTITIONS,),
    ),
    "rws": Row(
        "RWS",
        "reweighted wake-sleep: L_{k} for the decoder, the wake-phi update for the encoder",
        {
            "score": Method("score", "ReweightedWakeSleep", parameters=(SLEEP,)),
            "rws-dreg": Method("importance_weighted", "DReGAlpha", fixed={"alpha": 1.0}),
        },
        least_samples=2,
    ),
    "piwae": Row(
        "PIWAE",
        "PIWAE: L_{samples} for the decoder, the average of {m} bounds L_{k} for the encoder",
        {
            "reparameterized": Method("importance_weighted", "PIWAE"),
            "dreg": Method("importance_weighted", "PIWAEDReG"),
        },
        parameters=(M,),
    ),
    "vimco": Row(
        "VIMCO",
        "the importance weighted bound L_{k}, by VIMCO",
        {"score": Method("score", "VIMCO")},
        least_samples=2,
    ),
    "ovis": Row(
        "OVIS",
        "the importance weighted bound L_{k}, by OVIS",
        {"score": Method("score", "OVIS", parameters=(GAMMA,))},
        least_samples=2,
    ),
    "beta-vae": Row(
        "beta-VAE",
        "log p(x | h) less {beta} times the KL divergence, from {k} samples",
        {"reparameterized": Method("terms", "BetaVAE")},
        parameters=(VAE_BETA, WARM_UP),
    ),
    "free-bits": Row(
        "free bits",
        "log p(x | h) less the KL divergence, counted as {free_bits} nats where it is less, from {k} samples",
        {"reparameterized": Method("terms", "FreeBits")},
        parameters=(FREE_BITS,),
    ),
}
