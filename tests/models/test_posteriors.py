"""Posteriors with correlations and of flows: against SciPy, by integration, and exact expectations of gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from helpers.exact_expectation import Grid, distance, expected_gradient, gradient_of_expectation
from iwae import bounds
from iwae.errors import IWAEError
from iwae.estimators.bound import DoublyReparameterized, Reparameterized, ScoreFunction, StickingTheLanding
from iwae.models.architecture import Architecture
from iwae.models.distributions import Normal
from iwae.models.flows import Flow
from iwae.models.posteriors.flow import FlowNormal
from iwae.models.posteriors.full_covariance import FullNormal
from iwae.models.vae import HierarchicalVAE

RNG = np.random.default_rng(0)


def full(rows: tuple[int, ...], units: int) -> FullNormal:
    shapes = ((*rows, units), (*rows, units), (*rows, units * (units - 1) // 2))
    return FullNormal(*(jnp.asarray(0.7 * RNG.normal(size=shape)) for shape in shapes))


def covariance(distribution: FullNormal) -> np.ndarray:
    """Of one distribution, by its definition."""
    units = distribution.mean.shape[-1]
    mixing = np.eye(units)
    mixing[np.tril_indices(units, -1)] = distribution.below
    root = np.exp(np.asarray(distribution.log_scale))[:, None] * mixing
    return root @ root.T


def test_the_full_gaussian_is_scipys() -> None:
    with jax.enable_x64(True):
        many, value = full((5,), 3), RNG.normal(size=(4, 5, 3))
        found = np.asarray(many.log_prob(jnp.asarray(value)))
        spreads = np.asarray(many.log_sigma)
        for row in range(5):
            one = many.at(jnp.asarray(row))
            expected = stats.multivariate_normal.logpdf(value[:, row], np.asarray(one.mean), covariance(one))  # pyright: ignore[reportArgumentType]
            np.testing.assert_allclose(found[:, row], expected, rtol=1e-10)
            np.testing.assert_allclose(np.exp(2.0 * spreads[row]), np.diag(covariance(one)), rtol=1e-10)
        # Rows of values against several distributions, as in a mixture; and one unit.
        np.testing.assert_allclose(many.log_prob(jnp.asarray(value[0][:, None])).diagonal(), found[0], rtol=1e-10)
        alone = full((2,), 1)
        np.testing.assert_allclose(
            alone.log_prob(jnp.ones((2, 1))),
            stats.norm.logpdf(1.0, alone.mean, np.exp(alone.log_scale)).sum(axis=-1),
            rtol=1e-10,
        )


def test_draws_have_the_mean_and_covariance() -> None:
    one = full((), 3)
    draws = np.asarray(one.sample(jax.random.normal(jax.random.key(0), (200_000, 3))))
    np.testing.assert_allclose(draws.mean(axis=0), one.mean, atol=0.03)
    np.testing.assert_allclose(np.cov(draws.T), covariance(one), rtol=0.05, atol=0.05)


def flow_normal(units: int) -> FlowNormal:
    flow = Flow.create(units, 3, 5, jax.random.key(0), context=2)
    leaves, structure = jax.tree.flatten(flow)
    flow = jax.tree.unflatten(
        structure, [jnp.asarray(np.asarray(leaf) + 0.3 * RNG.normal(size=leaf.shape)) for leaf in leaves]
    )
    base = Normal(jnp.asarray(RNG.normal(size=units)), jnp.asarray(0.3 * RNG.normal(size=units)))
    return FlowNormal(base, flow, jnp.asarray(RNG.normal(size=2)))


@pytest.mark.parametrize("units", [1, 2])
def test_the_flows_density_integrates_to_one(units: int) -> None:
    distribution = flow_normal(units)
    axis = np.linspace(-25.0, 25.0, 801)
    points = np.stack(np.meshgrid(*[axis] * units), axis=-1).reshape(-1, units)
    density = np.exp(np.asarray(distribution.log_prob(jnp.asarray(points)), np.float64))
    assert density.sum() * (axis[1] - axis[0]) ** units == pytest.approx(1.0, abs=2e-3)


def test_a_draws_density_is_the_bases_less_the_change_of_volume() -> None:
    with jax.enable_x64(True):
        distribution, noise = flow_normal(3), RNG.normal(size=3)
        value = distribution.sample(jnp.asarray(noise))
        jacobian = jax.jacobian(distribution.sample)(jnp.asarray(noise))
        expected = stats.norm.logpdf(noise).sum() - np.linalg.slogdet(jacobian)[1]
        assert float(distribution.log_prob(value)) == pytest.approx(expected, rel=1e-8)


def rough(posterior: str, prior: str, units: int = 1) -> HierarchicalVAE:
    sizes: dict[str, Any] = {"prior_components": 2} if prior in ("mixture", "vampprior") else {}
    sizes |= {"flow_layers": 2, "flow_hidden": 3} if "flow" in (posterior, prior) else {}
    architecture = Architecture(3, (units,), ((3,),), posterior=posterior, prior=prior, **sizes)
    model = HierarchicalVAE.create(architecture, jax.random.key(3))
    leaves, structure = jax.tree.flatten(model)
    rng = np.random.default_rng(8)
    return jax.tree.unflatten(structure, [leaf + 0.3 * rng.normal(size=leaf.shape) for leaf in leaves])


KINDS = (Reparameterized, DoublyReparameterized, ScoreFunction)


@pytest.mark.parametrize(
    ("posterior", "prior", "kind"),
    [
        # A prior is the same to all kinds of derivatives; these take the posterior apart.
        ("diagonal", "mixture", DoublyReparameterized),
        ("diagonal", "vampprior", DoublyReparameterized),
        ("diagonal", "flow", DoublyReparameterized),
        *(("full-covariance", "standard", kind) for kind in KINDS),
        *(("flow", "vampprior", kind) for kind in KINDS),
    ],
)
def test_estimators_are_unbiased(posterior: str, prior: str, kind: Any) -> None:
    with jax.enable_x64(True):
        model, grid = rough(posterior, prior), Grid.gaussian(2)
        expected = gradient_of_expectation(bounds.iwae, model, grid)
        actual = expected_gradient(kind(2, bounds.iwae), model, grid)
        assert distance(actual, expected, "decoder") < 1e-8
        assert distance(actual, expected, "encoder") < 5e-4


def test_sticking_the_landing_is_biased_for_the_encoder_alone() -> None:
    with jax.enable_x64(True):
        model, grid = rough("flow", "vampprior"), Grid.gaussian(2)
        expected = gradient_of_expectation(bounds.iwae, model, grid)
        actual = expected_gradient(StickingTheLanding(2, bounds.iwae), model, grid)
        assert distance(actual, expected, "decoder") < 1e-8
        assert distance(actual, expected, "encoder") > 0.01


def test_binary_layers_have_no_other_posterior() -> None:
    with pytest.raises(IWAEError, match="`posterior` flow is for Gaussian latent layers"):
        Architecture(6, (3,), ((),), ("bernoulli",), posterior="flow")
