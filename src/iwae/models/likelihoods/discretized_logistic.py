"""Pixels of 8 bits: a logistic distribution, rounded to 256 levels."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float, Key

from iwae.errors import IWAEError
from iwae.models.distributions import total
from iwae.models.likelihoods.base import Likelihood, moments, seen

HALF_RANGE = 127.5
SMALLEST_SCALE = 1e-3
"""Of values from -1 to 1: an eighth of a level."""


class DiscretizedLogistic(eqx.Module):
    """Independent logistics over the last axis, of values in [-1, 1] that are rounded to the nearest of 256 levels; the
    outermost levels have all that lies beyond them (Kingma et al. 2016, arXiv 1606.04934, appendix).
    """

    location: Float[Array, "*shape units"]
    log_scale: Float[Array, "*shape units"]

    @property
    def mean(self) -> Float[Array, "*shape units"]:
        """Of the logistic, clipped to [-1, 1]: within half a level of that of the levels."""
        scale = jnp.exp(self.log_scale)
        low, high = ((self.location - end) / scale for end in (-1.0, 1.0))
        return scale * (jax.nn.softplus(low) - jax.nn.softplus(high)) - 1.0

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """The quantile of Phi(noise), for standard normal `noise`, rounded. No gradient passes through it."""
        draw = self.location + jnp.exp(self.log_scale) * (log_ndtr(noise) - log_ndtr(-noise))
        level = jnp.round((jnp.clip(draw, -1.0, 1.0) + 1.0) * HALF_RANGE)
        return jax.lax.stop_gradient(level / HALF_RANGE - 1.0)

    def log_prob(self, value: Float[Array, "*more units"], observed: Array | None = None) -> Float[Array, "*result"]:
        """Log probability of levels, as values in [-1, 1], in nats, summed over units, or over those that `observed`
        has.
        """
        precision, centered = jnp.exp(-self.log_scale), value - self.location
        half = 0.5 / HALF_RANGE
        upper, lower = precision * (centered + half), precision * (centered - half)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)); at the ends one of the edges is infinite.
        below = jax.nn.log_sigmoid(upper)
        above = jax.nn.log_sigmoid(-lower)
        inner = below + above + jnp.log(-jnp.expm1(-2.0 * half * precision))
        terms = jnp.where(value < half - 1.0, below, jnp.where(value > 1.0 - half, above, inner))
        return total(terms, observed)


class DiscretizedLogisticLikelihood(Likelihood):
    """Independent discretized logistics of whole numbers from 0 to 255, whose location and scale come from the network.

    Their figures are also given in bits per dimension, nats / (dim log 2).
    """

    name: ClassVar[str] = "discretized-logistic"
    words: ClassVar[str] = "discretized logistic"
    outputs_per_unit: ClassVar[int] = 2

    def check(self, rows: np.ndarray, what: str) -> None:
        super().check(rows, what)
        values = seen(rows)
        if values.size and (values.min() < 0 or values.max() > 255 or (values != np.floor(values)).any()):
            raise IWAEError(
                f"the {what} has values from {values.min():g} to {values.max():g}, but the discretized logistic"
                " likelihood scores whole numbers from 0 to 255"
            )

    def prepare(self, rows: Array, key: Key[Array, ""]) -> Float[Array, "*rows dim"]:
        return rows.astype(jnp.float32) / HALF_RANGE - 1.0

    def original(self, values: Float[Array, "*rows dim"]) -> Float[Array, "*rows dim"]:
        return (values + 1.0) * HALF_RANGE

    def distribution(self, outputs: Float[Array, "*rows outputs"]) -> DiscretizedLogistic:
        location, raw = jnp.split(outputs, 2, axis=-1)
        return DiscretizedLogistic(location, jnp.logaddexp(raw, math.log(SMALLEST_SCALE)))

    def initial_bias(self, rows: np.ndarray) -> np.ndarray:
        """The training means and the scales of logistics with the training variances, of at least a level's."""
        mean, variance = moments(np.asarray(rows, np.float64) / HALF_RANGE - 1.0)
        scale = np.sqrt(3.0 * np.maximum(variance, HALF_RANGE**-2)) / math.pi
        return np.concatenate([mean, np.log(scale - SMALLEST_SCALE)])
