"""Expected gradients without sampling error, by quadrature over Gaussian noise (one layer of one unit) or enumeration
over binary latents; and, for deeper Gaussian models, how many standard errors two estimators' averages are apart.

The noise of all k samples is one point of a grid, its probability a weight; the grid is the batch.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from iwae.estimators.base import WeightedEstimator
from iwae.estimators.gradients import Coefficients, weighted_gradient
from iwae.models.architecture import Architecture
from iwae.models.networks.base import Linear
from iwae.models.vae import HierarchicalVAE

X = np.array([1.0, 0.0, 1.0])
NODES = 80


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
        return cls(outcomes.noise, np.asarray(_probabilities(model, outcomes.noise)))

    @classmethod
    def _of(cls, values: np.ndarray, weights: np.ndarray, latent: tuple[int, ...], num_samples: int) -> "Grid":
        units = sum(latent)
        dimensions = num_samples * units
        points = np.array(list(itertools.product(values, repeat=dimensions)))
        masses = np.array(list(itertools.product(weights, repeat=dimensions))).prod(axis=1)
        noise = points.reshape(-1, num_samples, units).transpose(1, 0, 2)
        return cls(tuple(np.split(noise, np.cumsum(latent)[:-1], axis=2)), masses)


@eqx.filter_jit
def _probabilities(model: HierarchicalVAE, noise: tuple[np.ndarray, ...]) -> Array:
    x = jnp.broadcast_to(X, (noise[0].shape[1], 3))
    _, latents = model.sample_posterior(x, tuple(map(jnp.asarray, noise)))
    return jnp.exp(jnp.sum(model.log_posterior(x, latents), axis=0))


def rough_model(layers: int, kind: str = "gaussian", units: tuple[int, ...] | None = None) -> HierarchicalVAE:
    """A nonlinear model of x in {0, 1}^3 whose posterior its encoder does not match, in float64.

    Gaussian layers have even widths, so that weights have tails light enough for averages over draws, and upper ones
    of the encoder depend on what they see.
    """
    latent = units or (1,) * layers
    architecture = Architecture(3, latent, ((3,),) * layers, (kind,) * layers)  # pyright: ignore[reportArgumentType]
    model = _moved(architecture)
    if kind == "bernoulli":
        return model
    encoder = [gentle(layer, 1.0 if i == 0 else 2.0) for i, layer in enumerate(model.encoder)]
    decoder = [model.decoder[0], *(gentle(layer, 1.0) for layer in model.decoder[1:])]
    return HierarchicalVAE(tuple(encoder), tuple(decoder))


@eqx.filter_jit
def _moved(architecture: Architecture) -> HierarchicalVAE:
    leaves, structure = jax.tree.flatten(HierarchicalVAE.create(architecture, jax.random.key(3)))
    keys = jax.random.split(jax.random.key(8), len(leaves))
    moved = [leaf + 0.5 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def gentle(layer: Any, loudness: float) -> Any:
    """A Gaussian layer with more even widths, its mean's dependence on the input multiplied."""
    mean = Linear(loudness * layer.mean.weight, layer.mean.bias)
    return dataclasses.replace(layer, mean=mean, log_sigma=jax.tree.map(lambda leaf: 0.3 * leaf, layer.log_sigma))


@eqx.filter_jit
def expected_gradient(estimator: WeightedEstimator, model: HierarchicalVAE, grid: Grid) -> HierarchicalVAE:
    """The expectation at the one example X of what the estimator goes up: minus its gradient, of a mean loss."""
    # The grid is a batch, of which the estimator takes the mean.
    weights = -len(grid.weights) * jnp.asarray(grid.weights)

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


class Side(eqx.Module):
    """An estimator and the model that it is run on."""

    estimator: WeightedEstimator
    model: HierarchicalVAE

    def gradient(self, noise: tuple[Array, ...]) -> Array:
        """The encoder's gradient at X from the first of the noise's samples."""
        own = tuple(layer[: self.estimator.num_samples] for layer in noise)
        rule = self.estimator.coefficients, self.estimator.derivative
        return of_encoder(weighted_gradient(self.model, jnp.asarray(X)[None], own, *rule)[1])


@eqx.filter_jit
def standard_errors_apart(
    sides: dict[str, Side], pairs: dict[str, str], *, draws: int, most_samples: int = 4
) -> dict[str, tuple[Array, Array]]:
    """Of each pair of names of `sides`, the mean difference over draws of the same noise and its standard error, both
    relative to the largest entry of the second's mean gradient.
    """
    model = next(iter(sides.values())).model

    def gradients(key: Array) -> dict[str, Array]:
        noise = model.draw_noise(key, most_samples, 1)
        return {name: side.gradient(noise) for name, side in sides.items()}

    found = jax.lax.map(gradients, jax.random.split(jax.random.key(11), draws), batch_size=10_000)
    apart = {}
    for ours, theirs in pairs.items():
        difference = found[ours] - found[theirs]
        scale = jnp.max(jnp.abs(jnp.mean(found[theirs], axis=0)))
        error = jnp.std(difference, axis=0) / jnp.sqrt(draws)
        apart[ours] = jnp.mean(difference, axis=0) / scale, error / scale
    return apart
