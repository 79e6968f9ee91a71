"""Priors: against SciPy, by integration, identities, and what training and measuring make of them."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import iwae
from iwae.models.distributions import Normal, StandardNormal
from iwae.models.flows import Flow
from iwae.models.priors import mixture
from iwae.models.priors.flow import FlowPrior
from iwae.models.priors.mixture import Mixture
from iwae.models.priors.vampprior import VampPrior
from iwae.models.pruning import prune
from iwae.models.vae import HierarchicalVAE

RNG = np.random.default_rng(0)


def moved(tree: Any, size: float = 0.4, seed: int = 0) -> Any:
    """The same tree with other numbers: what starts at zero is not there any more."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(
        structure,
        [jnp.asarray(leaf + size * rng.normal(size=leaf.shape).astype(leaf.dtype)) for leaf in map(np.asarray, leaves)],
    )


def a_mixture(components: int = 4, units: int = 2) -> Mixture:
    return moved(Mixture.create(units, 0, jax.random.key(0), prior_components=components))


def test_a_mixtures_density_is_scipys() -> None:
    prior, value = a_mixture(), RNG.normal(size=(3, 5, 2)).astype(np.float32)
    weights = np.exp(prior.logits) / np.exp(prior.logits).sum()
    each = [
        stats.multivariate_normal.pdf(value, mean, np.diag(np.exp(2.0 * sigma)))  # pyright: ignore[reportArgumentType]
        for mean, sigma in zip(np.asarray(prior.components.mean), np.asarray(prior.components.log_sigma), strict=True)
    ]
    np.testing.assert_allclose(prior.log_prob(jnp.asarray(value)), np.log(np.tensordot(weights, each, 1)), rtol=1e-4)


def test_rows_that_follow_each_other_have_the_density_and_gradient_of_rows_at_once(monkeypatch: Any) -> None:
    prior, value = a_mixture(), jnp.asarray(RNG.normal(size=(3, 5, 2)), jnp.float32)

    def summed(prior: Mixture, value: Any) -> Any:
        return jnp.sum(jnp.sin(prior.log_prob(value)))

    at_once = eqx.filter_value_and_grad(summed)(prior, value)
    monkeypatch.setattr(mixture, "AT_ONCE", 4 * 2 * 4)
    in_turn = eqx.filter_value_and_grad(summed)(prior, value)
    assert "scan" in str(jax.make_jaxpr(lambda v: summed(prior, v))(value))
    for ours, theirs in zip(jax.tree.leaves(in_turn), jax.tree.leaves(at_once), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-6)


def test_a_mixture_of_one_standard_gaussian_is_the_standard_normal() -> None:
    prior = Mixture(Normal(jnp.zeros((1, 3)), jnp.zeros((1, 3))), jnp.full(1, 7.0))
    value, noise = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32), jax.random.normal(jax.random.key(0), (6, 4))
    np.testing.assert_allclose(prior.log_prob(value), StandardNormal().log_prob(value), rtol=1e-6)
    np.testing.assert_array_equal(prior.sample(noise), noise[:, :3])
    assert prior.noise_width(3) == 4


def test_draws_of_a_mixture_have_its_distribution() -> None:
    prior = a_mixture(units=1)
    draws = np.ravel(prior.sample(jax.random.normal(jax.random.key(1), (50_000, 2))))
    weights = np.exp(prior.logits) / np.exp(prior.logits).sum()
    means, sigmas = np.ravel(prior.components.mean), np.exp(np.ravel(prior.components.log_sigma))
    assert (
        stats.kstest(draws, lambda x: np.dot(stats.norm.cdf(np.asarray(x)[..., None], means, sigmas), weights)).pvalue
        > 0.01
    )
    assert float(prior.resting(1)[0]) == pytest.approx(np.dot(weights, means), rel=1e-5)
    # Some units of a mixture have the marginal distribution.
    wide = a_mixture(units=3)
    kept = wide.keep(jnp.array([True, False, True]))
    np.testing.assert_array_equal(kept.components.mean, np.asarray(wide.components.mean)[:, [0, 2]])


def test_a_pruned_model_has_the_marginal_of_its_mixture() -> None:
    architecture = iwae.Architecture(6, (3,), ((5,),), prior="mixture", prior_components=4)
    model = moved(HierarchicalVAE.create(architecture, jax.random.key(0)))
    mean, kept = np.array([0.1, 0.2, 0.3], np.float32), np.array([True, False, True])
    small = prune(model, (kept,), (mean,))
    assert isinstance(model.prior, Mixture)
    x, h = jnp.ones((2, 6)), jnp.asarray(RNG.normal(size=(5, 2, 3)), jnp.float32).at[..., 1].set(0.2)
    expected = model.log_visible(x, h) + model.prior.keep(jnp.asarray(kept)).log_prob(h[..., kept])
    np.testing.assert_allclose(small.log_joint(x, (h[..., kept],)), expected, rtol=1e-5)
    flow = replace(model, prior=FlowPrior.create(3, 0, jax.random.key(0), flow_layers=1, flow_hidden=2))
    with pytest.raises(iwae.IWAEError, match="this one has a flow one"):
        prune(flow, (kept,), (mean,))


def grid(units: int, reach: float = 12.0, points: int = 481) -> tuple[Any, float]:
    axis = np.linspace(-reach, reach, points, dtype=np.float32)
    mesh = np.stack(np.meshgrid(*[axis] * units), axis=-1).reshape(-1, units)
    return jnp.asarray(mesh), float(axis[1] - axis[0]) ** units


@pytest.mark.parametrize("units", [1, 2])
def test_a_flows_density_integrates_to_one_and_is_that_of_its_draws(units: int) -> None:
    prior = moved(FlowPrior.create(units, 0, jax.random.key(0), flow_layers=3, flow_hidden=5), 0.3)
    points, cell = grid(units)
    density = np.exp(np.asarray(eqx.filter_jit(prior.log_prob)(points), np.float64))
    assert density.sum() * cell == pytest.approx(1.0, abs=2e-3)
    draws = np.asarray(eqx.filter_jit(prior.sample)(jax.random.normal(jax.random.key(1), (100_000, units))))
    mean = (density[:, None] * np.asarray(points)).sum(axis=0) * cell
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.02)
    assert not np.allclose(density, np.exp(StandardNormal().log_prob(points)), atol=1e-2)


@pytest.mark.parametrize("units", [1, 2, 5])
@pytest.mark.parametrize("context", [None, 3])
def test_a_flow_is_inverted_and_its_determinant_is_that_of_the_jacobian(units: int, context: int | None) -> None:
    with jax.enable_x64(True):
        flow = moved(Flow.create(units, 5, 7, jax.random.key(0), context))
        flow = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, float)), flow)
        z = jnp.asarray(RNG.normal(size=units))
        given = None if context is None else jnp.asarray(RNG.normal(size=context))
        h = eqx.filter_jit(flow.forward)(z, given)
        back, log_det = eqx.filter_jit(flow.inverse)(h, given)
        np.testing.assert_allclose(back, z, rtol=1e-8)
        sign, expected = np.linalg.slogdet(jax.jit(jax.jacobian(lambda h: flow.inverse(h, given)[0]))(h))
        assert sign == 1.0
        assert float(log_det) == pytest.approx(expected, rel=1e-8)
        assert not np.allclose(h, z)


def test_a_flow_is_the_identity_at_first() -> None:
    prior = FlowPrior.create(5, 0, jax.random.key(0), flow_layers=4, flow_hidden=6)
    value = jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32)
    np.testing.assert_allclose(prior.log_prob(value), StandardNormal().log_prob(value), rtol=1e-6)
    np.testing.assert_array_equal(prior.resting(5), np.zeros(5))


def data(count: int = 40) -> np.ndarray:
    return (np.random.default_rng(1).random((count, 6)) < 0.4).astype(np.uint8)


@pytest.fixture(scope="module", params=[1, 2], ids=["one layer", "two layers"])
def vamp(request: pytest.FixtureRequest) -> HierarchicalVAE:
    latent, hidden = ((3,), ((5,),)) if request.param == 1 else ((4, 3), ((5,), (5,)))
    return iwae.create_model(data(), iwae.Architecture(None, latent, hidden, prior="vampprior", prior_components=7))


def test_the_vampprior_is_the_mixture_of_the_posteriors_of_its_pseudo_inputs(vamp: HierarchicalVAE) -> None:
    assert isinstance(vamp.prior, VampPrior)
    inputs, value = vamp.prior.pseudo_inputs, jnp.asarray(RNG.normal(size=(2, 4, 3)), jnp.float32)
    log_prob = eqx.filter_jit(lambda layer, u: layer(u[None]).log_prob(value))
    each = np.stack([np.asarray(log_prob(vamp.encoder[-1], u)) for u in inputs])
    found = eqx.filter_jit(lambda model: model.top_prior.log_prob(value))(vamp)
    np.testing.assert_allclose(found, np.log(np.exp(each).mean(axis=0)), rtol=1e-4)
    assert vamp.sample(jax.random.key(0), 5).shape == (5, 6)


def test_the_vampprior_starts_from_training_rows(vamp: HierarchicalVAE) -> None:
    assert isinstance(vamp.prior, VampPrior)
    found = np.asarray(vamp.prior.pseudo_inputs)
    rows = jnp.asarray(data(), jnp.float32)
    for layer in vamp.encoder[:-1]:
        rows = layer(rows).mean
    distances = np.abs(found[:, None] - np.asarray(rows)[None]).max(axis=-1)
    assert distances.min(axis=1).max() < 1e-6
    assert len(set(distances.argmin(axis=1))) > 4
    # More pseudo-inputs than rows are some of these more than once.
    many = iwae.create_model(data(3), iwae.Architecture(None, (2,), ((3,),), prior="vampprior", prior_components=8))
    assert np.isin(np.asarray(many.prior.pseudo_inputs), (0.0, 1.0)).all()


@pytest.mark.parametrize(
    ("prior", "word"),
    [
        *(("mixture", word) for word in ("iwae", "iwae:stl", "iwae:dreg", "vimco", "rws:sleep=0.5")),
        ("vampprior", "iwae:dreg"),
        ("vampprior", "rws:sleep=0.5"),
        ("flow", "iwae:dreg"),
        ("flow", "rws:sleep=0.5"),
    ],
)
def test_every_estimator_moves_the_prior(prior: str, word: str) -> None:
    sizes: dict[str, Any] = {} if prior == "flow" else {"prior_components": 3}
    model = moved(
        HierarchicalVAE.create(iwae.Architecture(6, (2,), ((3,),), prior=prior, **sizes), jax.random.key(0)), 0.1
    )
    x = jnp.asarray(data(4), jnp.float32)
    estimate = eqx.filter_jit(iwae.make_estimator(word, k=4))(model, x, jax.random.key(1))
    gradients = jax.tree.leaves(estimate.gradient.prior)
    assert gradients
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0.0 for leaf in gradients)


@pytest.mark.parametrize(
    ("prior", "start"), [("mixture", "prior"), ("flow", "prior"), ("vampprior", "prior"), ("vampprior", "encoder")]
)
def test_annealing_finds_log_p_from_the_prior_and_from_the_encoder(prior: str, start: Any) -> None:
    rows = data(4)
    sizes: dict[str, Any] = {} if prior == "flow" else {"prior_components": 3}
    model = moved(iwae.create_model(rows, iwae.Architecture(None, (2,), ((3,),), prior=prior, **sizes)), 0.2)
    points, cell = grid(2, 10.0, 201)
    joint = eqx.filter_jit(HierarchicalVAE.log_joint)(
        model, jnp.asarray(rows, jnp.float32), (jnp.repeat(points[:, None], len(rows), axis=1),)
    )
    exact = np.log(np.exp(np.asarray(joint, np.float64)).sum(axis=0) * cell)
    annealed = iwae.ais(model, rows, chains=64, steps=60 if start == "encoder" else 30, start=start)
    np.testing.assert_allclose(annealed.log_likelihood, exact, atol=0.1)


def test_binary_top_layers_have_no_other_prior() -> None:
    with pytest.raises(iwae.IWAEError, match="`prior` flow is for a Gaussian top layer"):
        iwae.Architecture(6, (3,), ((),), ("bernoulli",), prior="flow")


def test_a_prior_of_ones_own_is_used(vamp: HierarchicalVAE) -> None:
    class Wide(StandardNormal):
        def sample(self, noise: Any) -> Any:
            return 3.0 * noise

        def log_prob(self, value: Any) -> Any:
            return super().log_prob(value / 3.0) - value.shape[-1] * np.log(3.0)

    model = replace(vamp, prior=Wide())
    assert model.prior_name is None
    x = jnp.asarray(data(3), jnp.float32)
    latents = model.sample_posterior(x, model.draw_noise(jax.random.key(0), 2, 3))[1]
    expected = stats.norm(scale=3.0).logpdf(np.asarray(latents[-1])).sum(axis=-1)
    below = [layer.log_prob(h, u) for layer, h, u in zip(model.decoder[1:], latents, latents[1:], strict=False)]
    np.testing.assert_allclose(model.log_prior(latents), expected + sum(map(np.asarray, below)), rtol=1e-4)
