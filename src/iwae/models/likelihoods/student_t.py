"""Real numbers with heavy tails: a Student t of standardized values."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from iwae.models.distributions import total
from iwae.models.likelihoods.gaussian import SMALLEST_SIGMA, GaussianLikelihood

SMALLEST_FREEDOM = 2.0
"""Degrees of freedom are above this: the variance exists."""
QUANTILE_STEPS = 45


class ScaledStudentT(eqx.Module):
    """Independent Student t distributions of standardized values, whose densities are those in the values' units."""

    location: Float[Array, "*shape units"]
    log_sigma: Float[Array, "*shape units"]
    freedom: Float[Array, "*shape units"]
    log_scale: Float[Array, " units"]

    @property
    def mean(self) -> Float[Array, "*shape units"]:
        """Of the standardized values."""
        return self.location

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """A standardized draw: the quantile of Phi(noise), by bisection. No gradient passes through it."""
        freedom = jax.lax.stop_gradient(self.freedom)
        level = jnp.abs(noise)
        middle_part, tail = 0.5 * jax.scipy.special.erf(level * math.sqrt(0.5)), jax.scipy.special.ndtr(-level)

        def is_reached(value: Array) -> Array:
            """Whether |t| < value is as probable as |noise| < level: by the middle part, far out by the tail, each
            where float32 resolves it.
            """
            square = jnp.square(value)
            share = square / (freedom + square)
            middle = 0.5 * jax.scipy.special.betainc(0.5, freedom / 2, share)
            beyond = 0.5 * jax.scipy.special.betainc(freedom / 2, 0.5, 1.0 - share)
            return jnp.where(level < 1.0, middle >= middle_part, beyond <= tail)

        def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = (low + high) / 2
            reached = is_reached(middle)
            return jnp.where(reached, low, middle), jnp.where(reached, middle, high)

        high = jnp.broadcast_to(jnp.float32(1e4), jnp.broadcast_shapes(level.shape, self.location.shape))
        low, high = jax.lax.fori_loop(0, QUANTILE_STEPS, halve, (jnp.zeros_like(high), high))
        draw = self.location + jnp.exp(self.log_sigma) * jnp.sign(noise) * (low + high) / 2
        return jax.lax.stop_gradient(draw)

    def log_prob(self, value: Float[Array, "*more units"], observed: Array | None = None) -> Float[Array, "*result"]:
        """Of standardized values, in nats: that of the t less the log of each unit's scale (the Jacobian)."""
        standardized = (value - self.location) * jnp.exp(-self.log_sigma)
        half = (self.freedom + 1.0) / 2
        constant = gammaln(half) - gammaln(self.freedom / 2) - 0.5 * jnp.log(math.pi * self.freedom)
        terms = constant - half * jnp.log1p(jnp.square(standardized) / self.freedom)
        return total(terms - self.log_sigma - self.log_scale, observed)


class StudentTLikelihood(GaussianLikelihood):
    """Independent Student t distributions whose location, scale and degrees of freedom (above 2) come from the network.

    Values are standardized, and the scale is bounded below, as for `GaussianLikelihood`.
    """

    name: ClassVar[str] = "student-t"
    words: ClassVar[str] = "Student t"
    outputs_per_unit: ClassVar[int] = 3

    def distribution(self, outputs: Float[Array, "*rows outputs"]) -> ScaledStudentT:  # pyright: ignore[reportIncompatibleMethodOverride]
        location, raw, freedom = jnp.split(outputs, 3, axis=-1)
        log_sigma = jnp.logaddexp(raw, math.log(SMALLEST_SIGMA))
        # A bias of zero begins with about six degrees of freedom.
        degrees = SMALLEST_FREEDOM + jax.nn.softplus(freedom + 4.0)
        return ScaledStudentT(location, log_sigma, degrees, self.log_spread(location.shape[-1]))
