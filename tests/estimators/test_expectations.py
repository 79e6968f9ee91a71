"""What every gradient estimator's expectation is, computed without sampling where that is possible."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from helpers.exact_expectation import (
    Grid,
    Side,
    X,
    distance,
    expected_gradient,
    gradient_of_expectation,
    rough_model,
    standard_errors_apart,
)
from iwae import bounds
from iwae.estimators.base import WeightedEstimator
from iwae.estimators.bound import DoublyReparameterized, Reparameterized, ScoreFunction, StickingTheLanding
from iwae.estimators.importance_weighted import PIWAE, DReGAlpha, PIWAEDReG
from iwae.estimators.score import OVIS, VIMCO, LeaveOneOut, OVISMonteCarlo, ReweightedWakeSleep, ThermodynamicScore
from iwae.models.vae import HierarchicalVAE

EXACT = 5e-4

BOUNDS = {
    "elbo": bounds.elbo,
    "iwae": bounds.iwae,
    "ciwae": Partial(bounds.ciwae, beta=0.3),
    "renyi 0.5": Partial(bounds.renyi, alpha=0.5),
    "renyi 1.00001": Partial(bounds.renyi, alpha=1.00001),
    "jvi": bounds.jvi,
    "tvo": Partial(bounds.tvo, partitions=3, first_beta=0.2),
}


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("kind", [Reparameterized, DoublyReparameterized, ScoreFunction])
@pytest.mark.parametrize("name", BOUNDS)
def test_estimators_of_a_bound_are_unbiased_for_both_groups_of_parameters(kind, name):
    model, grid = rough_model(1), Grid.gaussian(2)
    expected = gradient_of_expectation(BOUNDS[name], model, grid)
    actual = expected_gradient(kind(2, BOUNDS[name]), model, grid)
    assert distance(actual, expected, "decoder") < 1e-9
    assert distance(actual, expected, "encoder") < EXACT


class OutputsStopped(HierarchicalVAE):
    """The mistake that others make: q's mean and sigma are held fixed inside log q, not its parameters."""

    def log_posterior(self, x, latents):
        below = (x, *latents[:-1])
        fixed = [jax.lax.stop_gradient(layer(b)) for layer, b in zip(self.encoder, below, strict=True)]
        return jnp.sum(jnp.stack([q.log_prob(h) for q, h in zip(fixed, latents, strict=True)]), axis=0)


ESTIMATORS: dict[str, WeightedEstimator] = {
    "elbo": Reparameterized(3, bounds.elbo),
    "iwae": Reparameterized(3, bounds.iwae),
    "ciwae": Reparameterized(3, BOUNDS["ciwae"]),
    "rws": ReweightedWakeSleep(3),
    "stl of the elbo": StickingTheLanding(3, bounds.elbo),
    "stl of iwae": StickingTheLanding(3, bounds.iwae),
    "dreg": DReGAlpha(3, 0.0),
    "dreg of ciwae": DoublyReparameterized(3, BOUNDS["ciwae"]),
    "wake-phi": DReGAlpha(3, 1.0),
    "score": ScoreFunction(3, bounds.iwae),
    "rloo": LeaveOneOut(3),
    "vimco": VIMCO(3),
    "ovis": OVIS(3, 0.0),
    "ovis-mc": OVISMonteCarlo(4, 1),
}
# Estimators of one expectation, and the largest standard error of their difference from 10,000 draws: above it the
# test would see nothing.
SAME = {
    "stl of the elbo": ("elbo", 0.035),
    "dreg": ("iwae", 0.035),
    "dreg of ciwae": ("ciwae", 0.035),
    "score": ("iwae", 0.5),
    "rloo": ("elbo", 0.5),
    "vimco": ("iwae", 0.26),
    "ovis": ("iwae", 0.26),
    "ovis-mc": ("iwae", 0.26),
    "wake-phi": ("rws", 0.35),
}
# Pairs whose expectations differ by more than ten standard errors somewhere.
DIFFERENT = {"stl of iwae": "iwae", "rws": "iwae", "outputs stopped": "iwae"}


@pytest.mark.parametrize("layers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_expectations_of_the_encoders_gradients_in_deeper_models(layers):
    model = rough_model(layers, units=(2,) * layers)
    mutant = OutputsStopped(model.encoder, model.decoder, model.prior)
    sides = {name: Side(estimator, model) for name, estimator in ESTIMATORS.items()}
    sides["outputs stopped"] = Side(DReGAlpha(3, 0.0), mutant)
    pairs = {name: other for name, (other, _) in SAME.items()} | DIFFERENT
    apart = standard_errors_apart(sides, pairs, draws=10_000 if layers == 2 else 30_000)
    for name, (_, most) in SAME.items():
        difference, error = map(np.asarray, apart[name])
        assert error.max() < most, name
        assert np.all(np.abs(difference) <= 5 * error + 1e-12), name
    for name in DIFFERENT:
        difference, error = map(np.asarray, apart[name])
        assert np.any(np.abs(difference) > 10 * error + 1e-12), name


def test_of_one_layer_too_wake_phi_has_one_expectation_and_stl_is_biased():
    model, grid = rough_model(1), Grid.gaussian(2)
    wake = expected_gradient(ReweightedWakeSleep(2), model, grid)
    iwae = gradient_of_expectation(bounds.iwae, model, grid)
    assert distance(expected_gradient(DReGAlpha(2, 1.0), model, grid), wake, "encoder") < EXACT
    assert distance(wake, iwae, "encoder") > 0.1
    assert distance(expected_gradient(StickingTheLanding(2, bounds.iwae), model, grid), iwae, "encoder") > 0.1


@pytest.mark.parametrize("kind", [PIWAE, PIWAEDReG])
def test_piwae_follows_one_bound_with_each_group_of_parameters(kind):
    # Groups of one sample: MIWAE(2, 1) is the ELBO, and IWAE has both samples.
    model, grid = rough_model(1), Grid.gaussian(2)
    actual = expected_gradient(kind(2, 2), model, grid)
    assert distance(actual, gradient_of_expectation(bounds.iwae, model, grid), "decoder") < EXACT
    assert distance(actual, gradient_of_expectation(bounds.elbo, model, grid), "encoder") < EXACT


def test_groups_average_the_bound():
    model, grid = rough_model(1), Grid.gaussian(2)
    # Two groups of one sample: MIWAE(2, 1) is the ELBO.
    expected = gradient_of_expectation(lambda w: bounds.miwae(w[:, None]), model, grid)
    assert distance(expected, gradient_of_expectation(bounds.elbo, model, grid), "encoder") < 1e-12
    for kind in (Reparameterized, DoublyReparameterized, ScoreFunction):
        actual = expected_gradient(kind(2, bounds.iwae, 2), model, grid)
        assert distance(actual, expected, "decoder") < 1e-9
        assert distance(actual, expected, "encoder") < EXACT


BINARY = {1: (3,), 2: (2, 1), 3: (1, 1, 1)}


# How layers are put together is the same for all estimators: one of them sees each depth.
@pytest.mark.parametrize(
    ("layers", "estimator", "bound"),
    [
        (1, VIMCO(2), bounds.iwae),
        (2, VIMCO(2), bounds.iwae),
        (3, VIMCO(2), bounds.iwae),
        (2, ScoreFunction(2, bounds.iwae), bounds.iwae),
        (2, OVIS(2, 0.0), bounds.iwae),
        (2, OVISMonteCarlo(3, 1), bounds.iwae),
        (2, LeaveOneOut(2), bounds.elbo),
    ],
    ids=["vimco-1", "vimco-2", "vimco-3", "score", "ovis", "ovis-mc", "rloo"],
)
def test_estimators_for_binary_latents_are_unbiased(layers, estimator, bound):
    model = rough_model(layers, "bernoulli", BINARY[layers])
    small = Grid.binary(model, 2)
    assert small.weights.sum() == pytest.approx(1.0)
    expected = gradient_of_expectation(bound, model, small, binary=True)
    actual = expected_gradient(estimator, model, Grid.binary(model, estimator.num_samples))
    assert distance(actual, expected, "decoder") < 1e-9
    assert distance(actual, expected, "encoder") < 1e-9


def test_leaving_one_out_is_the_gradient_of_half_the_variance():
    log_weights = jnp.log(jnp.array([[1.0], [2.0], [5.0]]))
    # d log w_i = -d log q(h_i | x): the score's coefficients are minus the derivative.
    variance = jax.grad(lambda w: jnp.var(w[:, 0], ddof=1) / 2)(log_weights)
    np.testing.assert_allclose(LeaveOneOut(3).coefficients(log_weights).encoder, variance, rtol=1e-12)


def test_the_thermodynamic_score_tends_to_the_gradient_of_the_objective():
    """Of all eight states of three binary units, the objective and its gradient by enumeration."""
    model, partitions, first_beta = rough_model(1, "bernoulli", (3,)), 3, 0.2
    grid = Grid.binary(model, 1)
    x = jnp.broadcast_to(jnp.array([1.0, 0.0, 1.0]), (8, 3))
    _, (latents,) = model.sample_posterior(x, tuple(map(jnp.asarray, grid.noise)))
    betas = np.array([0.0, 0.2, np.sqrt(0.2), 1.0])

    def objective(m: HierarchicalVAE) -> jax.Array:
        log_p, log_q = m.log_joint(x, (latents,))[0], m.log_posterior(x, (latents,))[0]
        total = jnp.zeros(())
        for beta, end in itertools.pairwise(betas):
            total += (end - beta) * jnp.sum(jax.nn.softmax(beta * log_p + (1 - beta) * log_q) * (log_p - log_q))
        return total

    exact = eqx.filter_jit(eqx.filter_grad(objective))(model)
    estimator = ThermodynamicScore(4000, partitions=partitions, first_beta=first_beta)
    estimate = average_of_five(estimator, model)
    assert distance(estimate, exact, "encoder") < 0.03
    assert distance(estimate, exact, "decoder") < 0.03


@eqx.filter_jit
def average_of_five(estimator: WeightedEstimator, model: HierarchicalVAE) -> HierarchicalVAE:
    """What the estimator goes up, averaged over five examples that are the same."""
    gradient = estimator(model, jnp.broadcast_to(X, (5, 3)), jax.random.key(0)).gradient
    return jax.tree.map(jnp.negative, gradient)


def test_a_binary_prior_learns():
    model = rough_model(2, "bernoulli", (2, 1))
    gradient = expected_gradient(VIMCO(2), model, Grid.binary(model, 2))
    assert np.all(np.abs(gradient.prior.logits) > 1e-3)


def test_ovis_with_gamma_lacks_exactly_the_weighted_score():
    model = rough_model(2, "bernoulli", (2, 1))
    grid = Grid.binary(model, 2)
    wake = expected_gradient(ReweightedWakeSleep(2), model, grid)
    with_gamma, without = (expected_gradient(OVIS(2, gamma), model, grid) for gamma in (0.4, 0.0))
    lacking = jax.tree.map(lambda a, b: (a - b) / 0.4, with_gamma, without)
    assert distance(lacking, wake, "encoder") < 1e-9
    assert distance(with_gamma, gradient_of_expectation(bounds.iwae, model, grid, binary=True), "encoder") > 0.05


def test_wake_phi_tends_to_the_gradient_of_the_inclusive_divergence():
    # -grad KL(p(h|x) || q(h|x)) = sum_h p(h|x) grad log q(h|x), by enumeration of the three units.
    model = rough_model(1, "bernoulli", (3,))
    grid = Grid.binary(model, 1)
    x = jnp.broadcast_to(jnp.array([1.0, 0.0, 1.0]), (8, 3))
    _, (latents,) = model.sample_posterior(x, tuple(map(jnp.asarray, grid.noise)))
    posterior = jax.nn.softmax(model.log_joint(x, (latents,))[0])
    exact = jax.grad(lambda m: jnp.sum(posterior * m.log_posterior(x, (latents,))[0]))(model)
    assert distance(average_of_five(ReweightedWakeSleep(4000), model), exact, "encoder") < 0.03


def test_sleep_phi_scores_the_models_own_dreams():
    model = rough_model(1, "bernoulli", (3,))
    outcomes = Grid.binary(model, 1)
    x = jnp.array([[(i >> bit) & 1 for bit in range(3)] for i in range(8)], float)
    tiled = jnp.broadcast_to(x[:, None], (8, 8, 3)).reshape(64, 3)
    _, (latents,) = model.sample_posterior(x, tuple(map(jnp.asarray, outcomes.noise)))
    tiled_latents = (jnp.broadcast_to(latents[0], (8, 8, 3)).reshape(64, 3),)
    joint = jnp.exp(model.log_joint(tiled, tiled_latents))
    assert float(joint.sum()) == pytest.approx(1.0)
    exact = jax.grad(lambda m: jnp.sum(joint * m.log_posterior(tiled, tiled_latents)))(model)
    batch = jnp.zeros((50_000, 3))
    estimate = eqx.filter_jit(ReweightedWakeSleep(1, sleep=1.0))(model, batch, jax.random.key(1)).gradient
    estimate = jax.tree.map(jnp.negative, estimate)
    assert distance(estimate, exact, "encoder") < 0.05


@pytest.mark.parametrize("kind", [Reparameterized, ScoreFunction])
def test_vr_max_is_unbiased_without_a_second_reparameterization(kind):
    model, grid = rough_model(1), Grid.gaussian(2)
    # Where the largest weight changes hands the integrand jumps, and the grid sees that only to its step.
    expected = expected_gradient(Reparameterized(2, bounds.vr_max), model, grid)
    actual = expected_gradient(kind(2, bounds.vr_max), model, grid)
    assert distance(actual, expected, "encoder") < 0.05
    assert distance(expected_gradient(DoublyReparameterized(2, bounds.vr_max), model, grid), expected, "encoder") > 1.0
