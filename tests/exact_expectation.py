"""Expected gradients without sampling error, by quadrature over Gaussian noise (one layer of one unit) or enumeration
over binary latents; and, for deeper Gaussian models, how many standard errors two estimators' averages are apart.

The noise of all k samples is one point of a grid, its probability a weight; the grid is the batch.
"""

import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from iwae.architecture import Architecture
from iwae.estimators import WeightedEstimator
from iwae.gradients import Coefficients, weighted_gradient
from iwae.model import HierarchicalVAE

X = np.array([1.0, 0.0, 1.0])
NODES = 40


class Grid(eqx.Module):
    """Noise `[k, points, units]` per layer, and each point's probability `[points]`."""

    noise: tuple[np.ndarray, ...]
    weights: np.ndarray

    @classmethod
    def gaussian(cls, num_samples: int) -> "Grid":
        """The trapezoidal rule for one unit: it converges faster than Gauss-Hermite's on weights, which have poles
        close to the real line.
        """
        nodes = np.linspace(-7.0, 7.0, NODES)
        weights = np.exp(-0.5 * nodes**2)
        return cls._of(nodes, weights / weights.sum(), (1,), num_samples)

    @classmethod
    def binary(cls, model: HierarchicalVAE, num_samples: int) -> "Grid":
        """Noise that makes every unit 0 or 1 in every combination, weighted by q of the outcome."""
        outcomes = cls._of(np.array([-9.0, 9.0]), np.ones(2), model.latent, num_samples)
        x = jnp.broadcast_to(X, (len(outcomes.weights), 3))
        noise = tuple(map(jnp.asarray, outcomes.noise))
        _, latents = model.sample_posterior(x, noise)
        return cls(outcomes.noise, np.asarray(jnp.exp(jnp.sum(model.log_posterior(x, latents), axis=0))))

    @classmethod
    def _of(cls, values: np.ndarray, weights: np.ndarray, latent: tuple[int, ...], num_samples: int) -> "Grid":
        units = sum(latent)
        dimensions = num_samples * units
        points = np.array(list(itertools.product(values, repeat=dimensions)))
        masses = np.array(list(itertools.product(weights, repeat=dimensions))).prod(axis=1)
        noise = points.reshape(-1, num_samples, units).transpose(1, 0, 2)
        return cls(tuple(np.split(noise, np.cumsum(latent)[:-1], axis=2)), masses)


def rough_model(layers: int, kind: str = "gaussian", units: tuple[int, ...] | None = None) -> HierarchicalVAE:
    """A nonlinear model of x in {0, 1}^3 whose posterior its encoder does not match, in float64."""
    latent = units or (1,) * layers
    architecture = Architecture(3, latent, ((3,),) * layers, (kind,) * layers)  # pyright: ignore[reportArgumentType]
    model = HierarchicalVAE.create(architecture, jax.random.key(3))
    leaves, structure = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(8), len(leaves))
    return jax.tree.unflatten(
        structure, [leaf + 0.5 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    )


@eqx.filter_jit
def expected_gradient(estimator: WeightedEstimator, model: HierarchicalVAE, grid: Grid) -> HierarchicalVAE:
    """The estimator's expectation at the one example X."""
    weights = jnp.asarray(grid.weights)

    def weighted(log_weights: Array) -> Coefficients:
        bound, decoder, encoder = estimator.coefficients(log_weights)
        # Two different arrays for one set of coefficients would still be right, but not what is run in training.
        scaled = decoder * weights
        return Coefficients(bound, scaled, scaled if encoder is decoder else encoder * weights)

    x = jnp.broadcast_to(X, (len(grid.weights), 3))
    return weighted_gradient(model, x, tuple(map(jnp.asarray, grid.noise)), weighted, estimator.derivative)[1]


@eqx.filter_jit
def gradient_of_expectation(
    bound: Callable[[Array], Array], model: HierarchicalVAE, grid: Grid, *, binary: bool = False
) -> HierarchicalVAE:
    """The gradient of E[bound] itself; over binary noise the outcomes' probabilities depend on the model too."""
    x = jnp.broadcast_to(X, (len(grid.weights), 3))
    noise = tuple(map(jnp.asarray, grid.noise))

    def expectation(model: HierarchicalVAE) -> Array:
        posteriors, latents = model.sample_posterior(x, noise)
        log_q = sum(q.log_prob(h) for q, h in zip(posteriors, latents, strict=True))
        values = bound(model.log_joint(x, latents) - log_q)
        probabilities = jnp.exp(jnp.sum(log_q, axis=0)) if binary else jnp.asarray(grid.weights)
        return jnp.sum(probabilities * values)

    return jax.grad(expectation)(model)


def distance(ours: HierarchicalVAE, theirs: HierarchicalVAE, group: str) -> float:
    """Largest difference in the `encoder` or the rest (`decoder`: the prior too), relative to the largest entry."""

    def of_group(tree: HierarchicalVAE) -> np.ndarray:
        part = tree.encoder if group == "encoder" else (tree.decoder, tree.prior)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(part)])

    a, b = of_group(ours), of_group(theirs)
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def of_encoder(gradient: HierarchicalVAE) -> Array:
    """The encoder's part as one vector."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(gradient.encoder)])


@eqx.filter_jit
def standard_errors_apart(
    ours: WeightedEstimator, theirs: WeightedEstimator, model: HierarchicalVAE, *, draws: int = 50_000
) -> tuple[Array, Array]:
    """The encoder's mean difference between two estimators over draws of the same noise, and its standard error,
    both relative to the largest entry of the mean gradient of `theirs`.
    """
    x = jnp.asarray(X)[None]
    most = max(ours.num_samples, theirs.num_samples)

    def pair(key: Array) -> tuple[Array, Array]:
        noise = model.draw_noise(key, most, 1)
        a, b = (
            of_encoder(
                weighted_gradient(model, x, tuple(n[: e.num_samples] for n in noise), e.coefficients, e.derivative)[1]
            )
            for e in (ours, theirs)
        )
        return a - b, b

    difference, reference = jax.lax.map(pair, jax.random.split(jax.random.key(11), draws), batch_size=10_000)
    scale = jnp.max(jnp.abs(jnp.mean(reference, axis=0)))
    return jnp.mean(difference, axis=0) / scale, jnp.std(difference, axis=0) / scale / jnp.sqrt(draws)
