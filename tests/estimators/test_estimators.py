"""What every gradient estimator's expectation is, computed without sampling, and the identities between them."""

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
    distance,
    expected_gradient,
    gradient_of_expectation,
    rough_model,
    standard_errors_apart,
)
from helpers.linear_gaussian import LinearGaussian
from iwae import bounds
from iwae.errors import IWAEError
from iwae.estimators.base import Estimator, WeightedEstimator
from iwae.estimators.bound import (
    DoublyReparameterized,
    Reparameterized,
    ScoreFunction,
    StickingTheLanding,
    curvatures,
    slopes,
)
from iwae.estimators.gradients import Coefficients, weighted_gradient
from iwae.estimators.importance_weighted import PIWAE, DReGAlpha, PIWAEDReG
from iwae.estimators.score import (
    OVIS,
    VIMCO,
    LeaveOneOut,
    OVISMonteCarlo,
    ReweightedWakeSleep,
    ThermodynamicScore,
)
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE

LAYERS = pytest.mark.parametrize("layers", [1, 2, 3])
EXACT = 5e-4

BOUNDS = {
    "elbo": bounds.elbo,
    "iwae": bounds.iwae,
    "ciwae": Partial(bounds.ciwae, beta=0.3),
    "renyi 0.5": Partial(bounds.renyi, alpha=0.5),
    "renyi -1": Partial(bounds.renyi, alpha=-1.0),
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


# Pairs of estimators of one expectation, and the largest standard error of their difference: above it the test would
# see nothing.
SAME = {
    "stl of the elbo": (StickingTheLanding(3, bounds.elbo), Reparameterized(3, bounds.elbo), 0.02),
    "dreg": (DReGAlpha(3, 0.0), Reparameterized(3, bounds.iwae), 0.02),
    "dreg of ciwae": (DoublyReparameterized(3, BOUNDS["ciwae"]), Reparameterized(3, BOUNDS["ciwae"]), 0.02),
    "score": (ScoreFunction(3, bounds.iwae), Reparameterized(3, bounds.iwae), 0.3),
    "rloo": (LeaveOneOut(3), Reparameterized(3, bounds.elbo), 0.3),
    "vimco": (VIMCO(3), Reparameterized(3, bounds.iwae), 0.15),
    "ovis": (OVIS(3, 0.0), Reparameterized(3, bounds.iwae), 0.15),
    "ovis-mc": (OVISMonteCarlo(4, 1), Reparameterized(3, bounds.iwae), 0.15),
    "wake-phi": (DReGAlpha(3, 1.0), ReweightedWakeSleep(3), 0.2),
}
# Pairs whose expectations differ by more than ten standard errors somewhere.
DIFFERENT = {
    "stl of iwae": (StickingTheLanding(3, bounds.iwae), Reparameterized(3, bounds.iwae)),
    "wake-phi of iwae": (DReGAlpha(3, 1.0), DReGAlpha(3, 0.0)),
    "outputs stopped": (DReGAlpha(3, 0.0), Reparameterized(3, bounds.iwae)),
}


@pytest.mark.parametrize("layers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_expectations_of_the_encoders_gradients_in_deeper_models(layers):
    model = rough_model(layers, units=(2,) * layers)
    mutant = OutputsStopped(model.encoder, model.decoder, model.prior)
    pairs = {name: (Side(ours, model), Side(theirs, model)) for name, (ours, theirs, _) in SAME.items()}
    for name, (ours, theirs) in DIFFERENT.items():
        pairs[name] = Side(ours, mutant if name == "outputs stopped" else model), Side(theirs, model)
    apart = standard_errors_apart(pairs, draws=30_000)
    for name, (_, _, most) in SAME.items():
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
    average = lambda w: bounds.miwae(w.reshape(2, 2, -1))  # noqa: E731
    grouped, plain = gradients_at([DoublyReparameterized(4, bounds.iwae, 2), DoublyReparameterized(4, average)], 2, 4)
    assert_same(grouped, plain)


BINARY = {1: (3,), 2: (2, 1), 3: (1, 1, 1)}


@LAYERS
@pytest.mark.parametrize(
    "estimator",
    [ScoreFunction(2, bounds.iwae), VIMCO(2), OVIS(2, 0.0), OVISMonteCarlo(3, 1)],
    ids=["score", "vimco", "ovis", "ovis-mc"],
)
def test_estimators_for_binary_latents_are_unbiased(estimator, layers):
    model = rough_model(layers, "bernoulli", BINARY[layers])
    small = Grid.binary(model, 2)
    assert small.weights.sum() == pytest.approx(1.0)
    expected = gradient_of_expectation(bounds.iwae, model, small, binary=True)
    actual = expected_gradient(estimator, model, Grid.binary(model, estimator.num_samples))
    assert distance(actual, expected, "decoder") < 1e-9
    assert distance(actual, expected, "encoder") < 1e-9


@LAYERS
def test_leaving_one_out_is_unbiased_for_the_elbo_of_binary_latents(layers):
    model = rough_model(layers, "bernoulli", BINARY[layers])
    grid = Grid.binary(model, 2)
    expected = gradient_of_expectation(bounds.elbo, model, grid, binary=True)
    actual = expected_gradient(LeaveOneOut(2), model, grid)
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

    exact = eqx.filter_grad(objective)(model)
    estimator = ThermodynamicScore(4000, partitions=partitions, first_beta=first_beta)
    draw = eqx.filter_jit(lambda key: estimator(model, x[:1], key).gradient)
    drawn = [draw(key) for key in jax.random.split(jax.random.key(0), 20)]
    estimate = jax.tree.map(lambda *leaves: -sum(leaves) / 20, *drawn)
    assert distance(estimate, exact, "encoder") < 0.02
    assert distance(estimate, exact, "decoder") < 0.02


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
    draw = eqx.filter_jit(lambda key: ReweightedWakeSleep(4000)(model, x[:1], key).gradient)
    estimate = jax.tree.map(
        lambda *leaves: -sum(leaves) / 20, *[draw(key) for key in jax.random.split(jax.random.key(0), 20)]
    )
    assert distance(estimate, exact, "encoder") < 0.02


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
    batch = jnp.zeros((200_000, 3))
    estimate = eqx.filter_jit(ReweightedWakeSleep(1, sleep=1.0))(model, batch, jax.random.key(1)).gradient
    estimate = jax.tree.map(jnp.negative, estimate)
    assert distance(estimate, exact, "encoder") < 0.05


def gradients_at(estimators: list[WeightedEstimator], layers: int, num_samples: int) -> list[HierarchicalVAE]:
    """Gradients of several estimators from the same noise, three examples."""
    model = rough_model(layers, units=(3,) * layers)
    x = (jax.random.uniform(jax.random.key(5), (3, 3)) < 0.5).astype(float)
    noise = model.draw_noise(jax.random.key(6), num_samples, 3)
    return [weighted_gradient(model, x, noise, e.coefficients, e.derivative)[1] for e in estimators]


def assert_same(ours: HierarchicalVAE, theirs: HierarchicalVAE, scale: float = 1.0) -> None:
    for group in ("encoder", "decoder"):
        factor = scale if group == "encoder" else 1.0
        assert distance(ours, jax.tree.map(lambda leaf: factor * leaf, theirs), group) < 1e-10  # noqa: B023


@LAYERS
def test_with_one_sample_the_path_derivatives_are_one(layers):
    dreg, alpha, stl = gradients_at(
        [DoublyReparameterized(1, bounds.iwae), DReGAlpha(1, 0.0), StickingTheLanding(1, bounds.elbo)], layers, 1
    )
    assert_same(dreg, stl)
    assert_same(alpha, stl)


@LAYERS
def test_dreg_alpha_holds_dreg_and_half_of_stl(layers):
    dreg, zero, stl, half = gradients_at(
        [
            DoublyReparameterized(5, bounds.iwae),
            DReGAlpha(5, 0.0),
            StickingTheLanding(5, bounds.iwae),
            DReGAlpha(5, 0.5),
        ],
        layers,
        5,
    )
    assert_same(zero, dreg)
    assert_same(half, stl, scale=0.5)


@LAYERS
def test_dreg_of_the_elbo_is_stl(layers):
    dreg, stl = gradients_at([DoublyReparameterized(4, bounds.elbo), StickingTheLanding(4, bounds.elbo)], layers, 4)
    assert_same(dreg, stl)


@LAYERS
def test_piwae_has_the_decoder_of_iwae_and_the_encoder_of_miwae(layers):
    kinds = (PIWAE, Reparameterized), (PIWAEDReG, DoublyReparameterized)
    for piecewise, kind in kinds:
        both, iwae, miwae = gradients_at(
            [piecewise(6, 3), Reparameterized(6, bounds.iwae), kind(6, bounds.iwae, 3)], layers, 6
        )
        assert distance(both, iwae, "decoder") < 1e-10
        assert distance(both, miwae, "encoder") < 1e-10


@pytest.mark.parametrize("layers", [1, 2])
def test_at_the_exact_posterior_path_derivatives_vanish_draw_by_draw(layers):
    exact = LinearGaussian.random(layers)
    model, x = exact.model(), jnp.asarray(exact.sample(4))
    for estimator in (
        StickingTheLanding(3, bounds.elbo),
        StickingTheLanding(3, bounds.iwae),
        DoublyReparameterized(3, bounds.iwae),
        DoublyReparameterized(3, bounds.jvi),
        DReGAlpha(3, 1.0),
        PIWAEDReG(6, 2),
    ):
        encoder = estimator(model, x, jax.random.key(0)).gradient.encoder
        assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(encoder)) < 1e-12
    plain = Reparameterized(3, bounds.iwae)(model, x, jax.random.key(0)).gradient.encoder
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(plain)) > 0.1


def test_curvatures_are_those_of_the_closed_forms():
    log_weights = 3.0 * jax.random.normal(jax.random.key(0), (7, 4))
    weights = jax.nn.softmax(log_weights, axis=0)
    assert_close = np.testing.assert_allclose
    assert_close(curvatures(bounds.iwae, log_weights), weights * (1 - weights), atol=1e-12)
    assert_close(curvatures(bounds.elbo, log_weights), 0.0, atol=1e-12)
    powers = jax.nn.softmax(1.7 * log_weights, axis=0)
    renyi = curvatures(Partial(bounds.renyi, alpha=-0.7), log_weights)
    assert_close(renyi, 1.7 * powers * (1 - powers), atol=1e-12)
    without = jnp.stack([jnp.where(jnp.arange(7)[:, None] == i, -jnp.inf, log_weights) for i in range(7)])
    loo = jax.nn.softmax(without, axis=1)
    jackknife = 7 * weights * (1 - weights) - 6 / 7 * jnp.sum(loo * (1 - loo), axis=0)
    assert_close(curvatures(bounds.jvi, log_weights), jackknife, atol=1e-11)
    # More samples than are taken at once.
    many = jax.random.normal(jax.random.key(1), (300, 2))
    shares = jax.nn.softmax(many, axis=0)
    assert_close(curvatures(bounds.iwae, many), shares * (1 - shares), atol=1e-12)


@pytest.mark.parametrize("spread", [1.0, 400.0])
def test_samples_of_no_weight_leave_every_gradient_finite(spread):
    """Log weights 400 nats apart underflow even in double precision; each group of PIWAE keeps its own share."""
    model = rough_model(2)
    x = jnp.array([[1.0, 0.0, 1.0]])
    noise = tuple(spread * n for n in model.draw_noise(jax.random.key(0), 6, 1))
    estimators: list[WeightedEstimator] = [
        Reparameterized(6, bounds.iwae),
        DoublyReparameterized(6, bounds.iwae),
        PIWAE(6, 3),
        PIWAEDReG(6, 3),
        VIMCO(6),
        OVIS(6, 1.0),
        OVISMonteCarlo(6, 2),
    ]
    for estimator in estimators:
        bound, gradient = weighted_gradient(model, x, noise, estimator.coefficients, estimator.derivative)
        assert jnp.isfinite(bound[0])
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradient))
    piecewise, miwae = (
        weighted_gradient(model, x, noise, e.coefficients, e.derivative)[1].encoder
        for e in (PIWAE(6, 3), Reparameterized(6, bounds.iwae, 3))
    )
    for ours, theirs in zip(jax.tree.leaves(piecewise), jax.tree.leaves(miwae), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)


def test_doubly_reparameterized_gradients_cost_no_second_forward_pass():
    """Operations as the compiler counts them, at the paper's sizes."""
    with jax.enable_x64(False):
        x = jax.ShapeDtypeStruct((20, 784), jnp.float32)
        key = jax.eval_shape(lambda: jax.random.key(0))
        for layers, most in ((1, 1.001), (2, 1.05)):
            model = eqx.filter_eval_shape(HierarchicalVAE.create, Architecture.paper(layers, 784), jax.random.key(0))
            flops = []
            for estimator in (Reparameterized(50, bounds.iwae), DReGAlpha(50, 0.0)):
                costs = jax.jit(estimator.__call__).lower(model, x, key).compile().cost_analysis()
                assert costs is not None
                flops.append(costs["flops"])
            assert flops[1] / flops[0] < most


# Weights 1, 2, 5 of one example: Z = 8, shares 1/8, 2/8, 5/8; the sums of the others are 7, 6 and 3.
HAND = np.log([[1.0], [2.0], [5.0]])
SHARES = np.array([1.0, 2.0, 5.0]) / 8
OTHERS = np.array([7.0, 6.0, 3.0])
ROOTS = np.sqrt([10.0, 5.0, 2.0])
L_3 = np.log(8 / 3)


@pytest.mark.parametrize(
    ("estimator", "encoder"),
    [
        (ScoreFunction(3, bounds.iwae), L_3 - SHARES),
        (VIMCO(3), L_3 - np.log((OTHERS + ROOTS) / 3) - SHARES),
        (OVIS(3, 1.0), L_3 - np.log(OTHERS / 2)),
        (OVIS(3, 0.25), L_3 - np.log(OTHERS / 2) - 0.75 * (SHARES + np.log(2 / 3))),
        (ReweightedWakeSleep(3, 0.25), 0.75 * SHARES),
        (DReGAlpha(3, 0.25), 0.25 * SHARES + 0.5 * SHARES**2),
        (PIWAE(3, 3), np.full(3, 1 / 3)),
        (PIWAEDReG(3, 1), SHARES**2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, WeightedEstimator) else "",
)
def test_coefficients_are_those_of_the_papers_by_hand(estimator, encoder):
    bound, decoder, actual = estimator.coefficients(jnp.asarray(HAND))
    np.testing.assert_allclose(bound, [L_3], rtol=1e-12)
    np.testing.assert_allclose(decoder[:, 0], SHARES, rtol=1e-12)
    # The estimators' numbers were made in single precision, before this test began.
    np.testing.assert_allclose(actual[:, 0], encoder, rtol=1e-7)


# Two groups of two: weights 1 and 3, 2 and 6.
GROUPED = np.log([[1.0], [3.0], [2.0], [6.0]])
IN_GROUP = np.array([1 / 4, 3 / 4, 1 / 4, 3 / 4])
GROUP_BOUNDS = np.log([2.0, 2.0, 4.0, 4.0])


@pytest.mark.parametrize(
    ("estimator", "encoder"),
    [
        (ScoreFunction(4, bounds.iwae, 2), (GROUP_BOUNDS - IN_GROUP) / 2),
        (DoublyReparameterized(4, bounds.iwae, 2), IN_GROUP**2 / 2),
        (PIWAE(4, 2), IN_GROUP / 2),
        (PIWAEDReG(4, 2), IN_GROUP**2 / 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, WeightedEstimator) else "",
)
def test_coefficients_of_groups_by_hand(estimator, encoder):
    bound, decoder, actual = estimator.coefficients(jnp.asarray(GROUPED))
    whole = isinstance(estimator, PIWAE | PIWAEDReG)
    np.testing.assert_allclose(bound, [np.log(3.0)] if whole else [(np.log(2) + np.log(4)) / 2], rtol=1e-12)
    np.testing.assert_allclose(decoder[:, 0], np.exp(GROUPED[:, 0]) / 12 if whole else IN_GROUP / 2, rtol=1e-12)
    np.testing.assert_allclose(actual[:, 0], encoder, rtol=1e-12)


def test_sleep_mixes_its_share_with_that_of_wake():
    model = rough_model(2, "bernoulli", (2, 1))
    x, key = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), jax.random.key(0)
    wake_key, sleep_key = jax.random.split(key)
    wake = ReweightedWakeSleep(4)(model, x, wake_key).gradient
    dream, latents = model.sample_joint(sleep_key, 2)
    sleep = jax.grad(lambda m: -jnp.mean(m.log_posterior(dream, latents)))(model)
    mixed = ReweightedWakeSleep(4, sleep=0.3)(model, x, key).gradient
    expected = jax.tree.map(lambda a, b: 0.7 * a + 0.3 * b, wake, sleep)
    assert distance(mixed, expected, "encoder") < 1e-12
    assert distance(mixed, wake, "decoder") < 1e-12


def test_coefficients_of_ovis_with_auxiliary_samples_by_hand():
    # L_2 of weights 1 and 2; sample i's baseline is the mean over the auxiliary weights 5 and 4, in its place.
    log_weights = jnp.log(jnp.array([[1.0], [2.0], [5.0], [4.0]]))
    bound, decoder, encoder = OVISMonteCarlo(4, 2).coefficients(log_weights)
    value = np.log(3 / 2)
    first = np.mean([np.log(7 / 2) - 5 / 7, np.log(6 / 2) - 4 / 6])
    second = np.mean([np.log(6 / 2) - 5 / 6, np.log(5 / 2) - 4 / 5])
    np.testing.assert_allclose(bound, [value], rtol=1e-12)
    np.testing.assert_allclose(decoder[:, 0], [1 / 3, 2 / 3, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(encoder[:, 0], [value - 1 / 3 - first, value - 2 / 3 - second, 0, 0], rtol=1e-12)


def test_vimcos_baseline_of_an_impossible_sample_is_made_of_the_others():
    log_weights = jnp.log(jnp.array([[0.0, 0.0], [2.0, 0.0], [8.0, 5.0]]))
    _, _, encoder = VIMCO(3).coefficients(log_weights)
    one = np.log(10 / 3) - np.log((10 + 4) / 3)
    np.testing.assert_allclose(encoder[:, 0], [one, np.log(10 / 8) - 0.2, np.log(10 / 2) - 0.8], rtol=1e-12)
    # Without its one possible sample the bound is -inf, and so is that sample's baseline.
    np.testing.assert_array_equal(encoder[:, 1], [0.0, 0.0, np.inf])


def test_piwaes_groups_keep_their_own_shares_in_single_precision():
    """A group 300 nats below the others: squares of its shares of all samples would be zero."""
    model = jax.tree.map(jnp.float32, rough_model(1, units=(3,)))
    x = jnp.asarray([[1.0, 0.0, 1.0]], jnp.float32)
    noise = tuple(jnp.concatenate([0.1 * n[:2], 60.0 * n[2:]]) for n in model.draw_noise(jax.random.key(0), 4, 1))
    noise = jax.tree.map(jnp.float32, noise)
    for kind, plain in ((PIWAE, Reparameterized), (PIWAEDReG, DoublyReparameterized)):
        ours, theirs = (
            weighted_gradient(model, x, noise, e.coefficients, e.derivative)[1].encoder
            for e in (kind(4, 2), plain(4, bounds.iwae, 2))
        )
        for leaf, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            assert leaf.dtype == jnp.float32
            np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Reparameterized, ScoreFunction])
def test_vr_max_is_unbiased_without_a_second_reparameterization(kind):
    model, grid = rough_model(1), Grid.gaussian(2)
    # Where the largest weight changes hands the integrand jumps, and the grid sees that only to its step.
    expected = expected_gradient(Reparameterized(2, bounds.vr_max), model, grid)
    actual = expected_gradient(kind(2, bounds.vr_max), model, grid)
    assert distance(actual, expected, "encoder") < 0.05
    assert distance(expected_gradient(DoublyReparameterized(2, bounds.vr_max), model, grid), expected, "encoder") > 1.0


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Reparameterized(10, bounds.iwae, 3), "10 samples can't be divided into 3 groups"),
        (lambda: PIWAE(5, 2), "5 samples can't be divided into 2 groups"),
        (lambda: PIWAEDReG(4, 0), "`num_groups` must be an integer of at least 1, got 0"),
        (lambda: Reparameterized(0, bounds.iwae), "`num_samples` must be an integer of at least 1, got 0"),
        (lambda: DReGAlpha(3, float("nan")), "finite alpha, got nan"),
        (lambda: ReweightedWakeSleep(3, 1.5), "sleep must be from 0 to 1, got 1.5"),
        (lambda: ReweightedWakeSleep(1), "`num_samples` must be an integer of at least 2 for wake-phi, got 1"),
        (lambda: VIMCO(1), "`num_samples` must be an integer of at least 2 for VIMCO, got 1"),
        (lambda: OVIS(3, -0.1), "gamma must be from 0 to 1, got -0.1"),
        (lambda: OVIS(1), "`num_samples` must be an integer of at least 2 for OVIS, got 1"),
        (lambda: OVISMonteCarlo(2, 1), "`num_samples` must be an integer of at least 3 with 1 auxiliary, got 2"),
        (lambda: OVISMonteCarlo(2, 0), "`auxiliary` must be an integer of at least 1, got 0"),
    ],
)
def test_estimators_without_meaning_are_refused(make, problem):
    with pytest.raises(IWAEError, match=problem):
        make()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"bound": lambda b: b[None]}, r"a bound of shape \[2\], got of shape \[1, 2\]"),
        ({"decoder": lambda a: a[0]}, r"a decoder of shape \[3, 2\], got of shape \[2\]"),
        ({"encoder": lambda a: 1.0}, r"an? encoder of shape \[3, 2\], got of shape \[\]"),
    ],
)
def test_coefficients_of_ones_own_of_other_shapes_are_refused(change, problem):
    class Own(WeightedEstimator):
        derivative = "path"

        def coefficients(self, log_weights):
            found = DReGAlpha(self.num_samples, 0.0).coefficients(log_weights)
            return found._replace(**{name: to(getattr(found, name)) for name, to in change.items()})

    with pytest.raises(IWAEError, match=problem):
        Own(3)(rough_model(1), jnp.zeros((2, 3)), jax.random.key(0))


def test_a_derivative_that_there_is_not_is_refused():
    class Own(WeightedEstimator):
        def coefficients(self, log_weights):
            return DReGAlpha(self.num_samples, 0.0).coefficients(log_weights)

    with pytest.raises(IWAEError, match="Own needs a derivative: total, path or score"):
        Own(3)

    class Other(Own):
        derivative = "paths"  # pyright: ignore[reportAssignmentType]

    with pytest.raises(IWAEError, match="derivative is one of total, path, score, got 'paths'"):
        Other(3)(rough_model(1), jnp.zeros((2, 3)), jax.random.key(0))


def test_a_bound_that_is_no_function_of_each_examples_samples_is_refused():
    with pytest.raises(IWAEError, match=r"into \[batch\], but this one made \[\] of \[2, 3\]: reduce over axis 0"):
        slopes(jnp.mean, jnp.zeros((2, 3)))


def test_an_estimator_of_ones_own_is_a_small_class():
    class Halved(WeightedEstimator):
        derivative = "path"

        def coefficients(self, log_weights):
            bound, decoder, encoder = DReGAlpha(self.num_samples, 0.0).coefficients(log_weights)
            return Coefficients(bound, decoder, 0.5 * encoder)

    own, dreg = gradients_at([Halved(5), DReGAlpha(5, 0.0)], 2, 5)
    assert_same(own, dreg, scale=0.5)
    assert isinstance(Halved(5), Estimator)


@pytest.mark.parametrize("kind", [Reparameterized, StickingTheLanding, DoublyReparameterized])
def test_binary_latents_refuse_derivatives_through_their_samples(kind):
    model = rough_model(2, "bernoulli", (2, 1))
    with pytest.raises(IWAEError, match=r"binary latents have no (total|path) derivative"):
        kind(2, bounds.iwae)(model, jnp.zeros((1, 3)), jax.random.key(0))
