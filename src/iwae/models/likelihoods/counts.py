"""Counts: Poisson, and negative binomial where they vary more than a Poisson's."""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, ndtr
from jaxtyping import Array, Float

from iwae.errors import IWAEError
from iwae.models.distributions import total
from iwae.models.likelihoods.base import Likelihood, seen

# Of logarithms: the exponentials of larger ones, and products of them, would leave float32.
LARGEST_LOG = 20.0
QUANTILE_STEPS = 40


class Poisson(eqx.Module):
    """Independent Poissons over the last axis, given by the logarithms of their rates."""

    log_rate: Float[Array, "*shape units"]

    @property
    def mean(self) -> Float[Array, "*shape units"]:
        """The rates."""
        return jnp.exp(self.log_rate)

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """The quantile of Phi(noise), for standard normal `noise`."""
        mean = jax.lax.stop_gradient(self.mean)
        return quantile(lambda count: jax.scipy.special.gammaincc(count + 1.0, mean), mean, mean, noise)

    def scaled(self, log_factor: Float[Array, "*more units"]) -> "Poisson":
        """With rates so many times as large."""
        return Poisson(self.log_rate + log_factor)

    def log_prob(self, value: Float[Array, "*more units"], observed: Array | None = None) -> Float[Array, "*result"]:
        """Log probability in nats, summed over units, or over those that `observed` has."""
        return total(value * self.log_rate - self.mean - gammaln(value + 1.0), observed)


class NegativeBinomial(eqx.Module):
    """Independent negative binomials over the last axis: Poissons whose rates are gamma distributed with mean
    exp(log_mean) and shape exp(log_shape), so that the variance is mean + mean^2 / shape.
    """

    log_mean: Float[Array, "*shape units"]
    log_shape: Float[Array, "*shape units"]

    @property
    def mean(self) -> Float[Array, "*shape units"]:
        return jnp.exp(self.log_mean)

    @property
    def variance(self) -> Float[Array, "*shape units"]:
        return self.mean + jnp.square(self.mean) * jnp.exp(-self.log_shape)

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """The quantile of Phi(noise), for standard normal `noise`."""
        # Gradients of the distribution function are not even asked for: JAX has none for its parameters.
        fixed = jax.lax.stop_gradient(self)
        return quantile(fixed.cdf, fixed.mean, fixed.variance, noise)

    def scaled(self, log_factor: Float[Array, "*more units"]) -> "NegativeBinomial":
        """With means so many times as large, of the same shape."""
        return NegativeBinomial(self.log_mean + log_factor, self.log_shape)

    def cdf(self, count: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """The probability of each unit's being at most `count`."""
        shape = jnp.exp(self.log_shape)
        return jax.scipy.special.betainc(shape, count + 1.0, shape / (shape + self.mean))

    def log_prob(self, value: Float[Array, "*more units"], observed: Array | None = None) -> Float[Array, "*result"]:
        """Log probability in nats, summed over units, or over those that `observed` has."""
        return total(self.log_probs(value), observed)

    def log_probs(self, value: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """Of each unit, in nats."""
        shape = jnp.exp(self.log_shape)
        log_sum = jnp.logaddexp(self.log_shape, self.log_mean)
        ways = gammaln(value + shape) - gammaln(shape) - gammaln(value + 1.0)
        return ways + shape * (self.log_shape - log_sum) + value * (self.log_mean - log_sum)


def quantile(cdf: Callable[[Array], Array], mean: Array, variance: Array, noise: Array) -> Array:
    """The least count whose distribution function reaches Phi(noise), by bisection; no gradient passes through it."""
    level = ndtr(noise)
    high = jnp.broadcast_to(jnp.ceil(mean + 12.0 * jnp.sqrt(variance) + 20.0), level.shape)

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = jnp.floor((low + high) / 2)
        reached = cdf(middle) >= level
        return jnp.where(reached, low, middle), jnp.where(reached, middle, high)

    _, found = jax.lax.fori_loop(0, QUANTILE_STEPS, halve, (jnp.full_like(high, -1.0), high))
    return jax.lax.stop_gradient(found)


class PoissonLikelihood(Likelihood):
    """Independent Poissons whose log rates come from the network; at most exp(20)."""

    name: ClassVar[str] = "poisson"
    words: ClassVar[str] = "Poisson"
    has_rates: ClassVar[bool] = True

    def check(self, rows: np.ndarray, what: str) -> None:
        super().check(rows, what)
        values = seen(rows)
        if values.size and (values.min() < 0 or (rows.dtype.kind == "f" and (values != np.floor(values)).any())):
            raise IWAEError(f"the {what} has values that are no counts: the {self.words} likelihood needs 0, 1, 2, ...")

    def inputs(self, x: Float[Array, "*rows dim"]) -> Float[Array, "*rows inputs"]:
        """log(1 + x): the encoder sees counts of any size alike."""
        return jnp.log1p(x)

    def distribution(self, outputs: Float[Array, "*rows outputs"]) -> Poisson | NegativeBinomial:
        return Poisson(_bounded(outputs))

    def initial_bias(self, rows: np.ndarray) -> np.ndarray:
        """The logarithm of the training mean, of at least 0.001."""
        return np.log(np.maximum(np.nan_to_num(np.nanmean(rows, axis=0, dtype=np.float64)), 1e-3))


class NegativeBinomialLikelihood(PoissonLikelihood):
    """Independent negative binomials whose log means and log shapes come from the network."""

    name: ClassVar[str] = "negative-binomial"
    words: ClassVar[str] = "negative binomial"
    outputs_per_unit: ClassVar[int] = 2

    def distribution(self, outputs: Float[Array, "*rows outputs"]) -> NegativeBinomial:
        return NegativeBinomial(*map(_bounded, jnp.split(outputs, 2, axis=-1)))

    def initial_bias(self, rows: np.ndarray) -> np.ndarray:
        """The log means, and the log shapes that give the training variances."""
        log_mean = super().initial_bias(rows)
        mean, variance = np.exp(log_mean), np.nan_to_num(np.nanvar(rows, axis=0, dtype=np.float64))
        shape = mean**2 / np.maximum(variance - mean, 1e-3 * mean**2 + 1e-6)
        return np.concatenate([log_mean, np.log(np.clip(shape, 1e-2, 1e3))])


def _bounded(log_value: Float[Array, "*rows units"]) -> Float[Array, "*rows units"]:
    return jnp.clip(log_value, -LARGEST_LOG, LARGEST_LOG)
