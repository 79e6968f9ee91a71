"""Names of objectives and estimators: what goes with what, and what each name builds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iwae import bounds
from iwae.errors import IWAEError
from iwae.estimators.base import WeightedEstimator
from iwae.estimators.bound import DoublyReparameterized, OfBound, Reparameterized, ScoreFunction, StickingTheLanding
from iwae.estimators.disarm import DisARM
from iwae.estimators.generalized import GeneralizedDoublyReparameterized
from iwae.estimators.importance_weighted import PIWAE, DReGAlpha, PIWAEDReG
from iwae.estimators.objective import Objective, make_estimator
from iwae.estimators.score import OVIS, VIMCO, LeaveOneOut, ReweightedWakeSleep, ThermodynamicScore
from iwae.estimators.table import OBJECTIVES
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE
from iwae.runs.config import RunConfig

NEEDED = {"miwae": {"m": 2}, "piwae": {"m": 2}, "ciwae": {"beta": 0.5}, "renyi": {"alpha": 0.5}}
NEEDED["free-bits"] = {"free_bits": 1.0}
PAIRS = [(name, estimator) for name, row in OBJECTIVES.items() for estimator in row.methods]


def objective_of(name, estimator):
    return Objective(name, k=3, estimator=estimator, **NEEDED.get(name, {}))


# The gradient is put together by the class: of each, the first pair is run whole.
FIRST_OF_CLASS = {type(make_estimator(objective_of(*pair))): pair for pair in reversed(PAIRS)}


@pytest.mark.parametrize(("name", "estimator"), PAIRS)
def test_every_pair_that_is_offered_has_finite_coefficients(name, estimator):
    made = make_estimator(objective_of(name, estimator))
    if not isinstance(made, WeightedEstimator):
        assert type(made) in FIRST_OF_CLASS
        return
    # Of antithetic pairs both are drawn.
    drawn = 2 * made.num_samples if estimator == "disarm" else made.num_samples
    bound, *groups = made.coefficients(jax.random.normal(jax.random.key(0), (drawn, 2)))
    assert bound.shape == (2,)
    for found in (bound, *groups):
        assert bool(jnp.all(jnp.isfinite(found)))
        assert bool(jnp.any(found != 0))


@pytest.mark.parametrize(("name", "estimator"), FIRST_OF_CLASS.values())
def test_every_class_of_estimators_gives_a_finite_gradient(name, estimator):
    objective = objective_of(name, estimator)
    binary = not objective.needs_gaussian_latents
    layers = 2 if estimator == "gdreg" else 1
    architecture = Architecture(4, (2,) * layers, ((3,),) * layers, ("bernoulli",) * layers if binary else ())
    model = HierarchicalVAE.create(architecture, jax.random.key(0))
    x = jnp.array([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    estimate = jax.jit(make_estimator(objective).__call__)(model, x, jax.random.key(1))
    assert jnp.isfinite(estimate.value)
    for group in (estimate.gradient.encoder, estimate.gradient.decoder):
        leaves = jax.tree.leaves(group)
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)
        assert any(bool(jnp.any(leaf != 0)) for leaf in leaves)


@pytest.mark.parametrize(
    ("objective", "kind", "samples"),
    [
        (Objective("elbo", k=4), Reparameterized, 4),
        (Objective("iwae", k=4, estimator="stl"), StickingTheLanding, 4),
        (Objective("iwae", k=4, estimator="dreg"), DReGAlpha, 4),
        (Objective("iwae", k=4, estimator="score"), ScoreFunction, 4),
        (Objective("miwae", k=4, m=3, estimator="dreg"), DoublyReparameterized, 12),
        (Objective("piwae", k=4, m=3), PIWAE, 12),
        (Objective("piwae", k=4, m=3, estimator="dreg"), PIWAEDReG, 12),
        (Objective("rws", k=4, sleep=0.5), ReweightedWakeSleep, 4),
        (Objective("rws", k=4, estimator="rws-dreg"), DReGAlpha, 4),
        (Objective("elbo", k=4, estimator="rloo"), LeaveOneOut, 4),
        (Objective("iwae", k=4, estimator="disarm"), DisARM, 4),
        (Objective("miwae", k=4, m=3, estimator="gdreg"), GeneralizedDoublyReparameterized, 12),
        (Objective("tvo", k=4, estimator="score"), ThermodynamicScore, 4),
        (Objective("vimco", k=4), VIMCO, 4),
        (Objective("ovis", k=4), OVIS, 4),
    ],
)
def test_names_build_what_they_say(objective, kind, samples):
    estimator = make_estimator(objective)
    assert type(estimator) is kind
    assert estimator.num_samples == samples


@pytest.mark.parametrize(
    ("objective", "function"),
    [
        (Objective("elbo", k=3), bounds.elbo),
        (Objective("iwae", k=3), bounds.iwae),
        (Objective("ciwae", k=3, beta=0.2), lambda w: bounds.ciwae(w, 0.2)),
        (Objective("renyi", k=3, alpha=-2.0), lambda w: bounds.renyi(w, -2.0)),
        (Objective("vr-iwae", k=3, alpha=0.3), lambda w: bounds.renyi(w, 0.3)),
        (Objective("tvo", k=3), lambda w: bounds.tvo(w, 5, 0.1)),
        (Objective("tvo", k=3, partitions=2, first_beta=0.3), lambda w: bounds.tvo(w, 2, 0.3)),
        (Objective("tvo-moments", k=3, partitions=4), lambda w: bounds.tvo_moments(w, 4)),
        (Objective("vr-max", k=3), bounds.vr_max),
        (Objective("jvi", k=3), bounds.jvi),
        (Objective("miwae", k=3, m=2), lambda w: bounds.miwae(w.reshape(2, 3, -1))),
    ],
)
def test_names_of_bounds_are_those_of_the_functions(objective, function):
    estimator = make_estimator(objective)
    assert isinstance(estimator, OfBound)
    log_weights = jax.random.normal(jax.random.key(0), (estimator.num_samples, 4))
    np.testing.assert_allclose(estimator.grouped(log_weights), function(log_weights), rtol=1e-6)


def test_numbers_of_numpy_are_numbers():
    objective = Objective("renyi", k=np.int64(5), alpha=np.float32(0.5))  # pyright: ignore[reportArgumentType]
    assert objective == Objective("renyi", k=5, alpha=0.5)
    assert type(objective.k) is int
    assert type(objective.alpha) is float


def test_parameters_reach_the_estimators():
    rws = make_estimator(Objective("rws", k=3, sleep=0.25))
    ovis = make_estimator(Objective("ovis", k=3, gamma=0.5))
    dreg = make_estimator(Objective("iwae", k=3, estimator="dreg", alpha=0.75))
    wake = make_estimator(Objective("rws", k=3, estimator="rws-dreg"))
    assert isinstance(rws, ReweightedWakeSleep)
    assert isinstance(ovis, OVIS)
    assert isinstance(dreg, DReGAlpha)
    assert isinstance(wake, DReGAlpha)
    assert (rws.sleep, ovis.gamma, dreg.alpha, wake.alpha) == (0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"name": "gan"}, "`objective` must be one of elbo, iwae, .*, got 'gan'"),
        ({"name": "iwae", "estimator": "magic"}, "`estimator` must be one of .*, got 'magic'"),
        (
            {"name": "vimco", "k": 5, "estimator": "dreg"},
            "dreg does not go with `objective` vimco, which has score; dreg",
        ),
        ({"name": "rws", "estimator": "dreg"}, "which has score, rws-dreg; dreg goes with elbo, iwae"),
        ({"name": "iwae", "k": 0}, "`k` must be an integer of at least 1, got 0"),
        ({"name": "iwae", "k": True}, "`k` must be an integer"),
        ({"name": "vimco", "k": 1}, "`k` must be an integer of at least 2 for `objective` vimco, got 1"),
        ({"name": "rws"}, "`k` must be an integer of at least 2 for `objective` rws, got 1"),
        ({"name": "vr-max", "estimator": "dreg"}, "dreg does not go with `objective` vr-max"),
        ({"name": "miwae"}, "`objective` miwae needs `m`"),
        ({"name": "miwae", "m": 0}, "`m` must be an integer of at least 1, got 0"),
        (
            {"name": "iwae", "m": 2},
            "`m` 2 goes with `objective` miwae and `objective` piwae, not with",
        ),
        ({"name": "ciwae"}, "`objective` ciwae needs `beta`"),
        ({"name": "ciwae", "beta": 1.5}, "`beta` must be a number from 0 to 1, got 1.5"),
        ({"name": "renyi"}, "`objective` renyi needs `alpha`"),
        ({"name": "renyi", "alpha": float("nan")}, "`alpha` must be a finite number, got nan"),
        (
            {"name": "iwae", "alpha": 0.5},
            "`alpha` 0.5 goes with `objective` iwae with `estimator` dreg and",
        ),
        ({"name": "iwae", "gamma": 0.5}, "`gamma` 0.5 goes with `objective` ovis"),
        (
            {"name": "rws", "k": 2, "sleep": 0.5, "estimator": "rws-dreg"},
            "`sleep` 0.5 goes with `objective` rws, not",
        ),
        ({"name": "rws", "k": 2, "sleep": 2}, "`sleep` must be a number from 0 to 1, got 2"),
    ],
)
def test_combinations_without_meaning_are_refused_saying_which_have_one(settings, problem):
    with pytest.raises(IWAEError, match=problem):
        Objective(**settings)


def test_names_of_runs_differ_wherever_objectives_do():
    objectives = [
        {"model": "vae"},
        {"model": "iwae", "k": 5},
        {"objective": "iwae", "k": 5, "estimator": "dreg"},
        {"objective": "iwae", "k": 5, "estimator": "dreg", "alpha": 0.5},
        {"objective": "iwae", "k": 5, "estimator": "stl"},
        {"objective": "miwae", "k": 5, "m": 2},
        {"objective": "miwae", "k": 5, "m": 3},
        {"objective": "ciwae", "k": 5, "beta": 0.0},
        {"objective": "ciwae", "k": 5, "beta": 0.5},
        {"objective": "renyi", "k": 5, "alpha": 0.0},
        {"objective": "renyi", "k": 5, "alpha": 2.0},
        {"objective": "rws", "k": 5},
        {"objective": "rws", "k": 5, "sleep": 0.5},
        {"objective": "rws", "k": 5, "latent_kind": "bernoulli"},
        {"objective": "ovis", "k": 5, "gamma": 0.0},
        {"objective": "ovis", "k": 5},
    ]
    configs = [RunConfig.of(**settings) for settings in objectives]
    assert len({config.name() for config in configs}) == len(configs)
    assert [config.name() for config in configs[:2]] == ["mnist-vae-k1-1layer-seed0", "mnist-iwae-k5-1layer-seed0"]
    assert all(RunConfig.from_json(config.to_json()) == config for config in configs)


def test_short_forms_and_objectives_are_the_same_configuration():
    assert RunConfig.of(model="vae") == RunConfig() == RunConfig.of(objective="elbo")
    assert RunConfig.of(model="iwae", k=5) == RunConfig.of(objective="iwae", k=5, estimator="reparameterized")
    assert RunConfig.of(model="iwae", objective="iwae").objective.name == "iwae"
    with pytest.raises(IWAEError, match="`model` vae is short for `objective` elbo, but `objective` jvi was given"):
        RunConfig.of(model="vae", objective="jvi", k=2)


def test_runs_from_before_objectives_had_names_are_read():
    old = RunConfig.of(model="iwae", k=5).to_json()
    for field in ("objective", "m", "alpha", "beta", "gamma", "sleep", "warm_up", "estimator", "latent_kind"):
        del old[field]
    assert RunConfig.from_json(old) == RunConfig.of(model="iwae", k=5)


@pytest.mark.parametrize("settings", [{}, {"objective": "iwae", "estimator": "dreg"}, {"objective": "piwae", "m": 2}])
def test_binary_latents_need_an_estimator_that_does_not_differentiate_through_them(settings):
    with pytest.raises(IWAEError, match=r"`latent_kind` bernoulli .* use `objective` vimco, ovis or rws"):
        RunConfig.of(latent_kind="bernoulli", **settings)


def test_a_sigmoid_belief_network_has_linear_layers_where_hidden_is_zero():
    config = RunConfig.of(objective="vimco", k=5, latent_kind="bernoulli", latent=(200, 200), hidden=(0, 0))
    architecture = config.architecture(784)
    assert architecture == Architecture(784, (200, 200), ((), ()), ("bernoulli", "bernoulli"))
    assert (
        RunConfig.of(objective="vimco", k=5, latent_kind="bernoulli", layers=2).architecture(9).kinds
        == ("bernoulli",) * 2
    )
