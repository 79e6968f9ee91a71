"""Real numbers: a diagonal Gaussian of standardized values."""

import math
from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from iwae.models.distributions import Normal, total
from iwae.models.likelihoods.base import Likelihood, has_missing, moments

SMALLEST_SIGMA = 1e-3
"""Of a standardized value. A density of real numbers has no upper bound: where training rows repeat, sigma would shrink
without end (Mattei & Frellsen 2018, "Leveraging the exact likelihood of deep latent variable models")."""


class ScaledNormal(eqx.Module):
    """A diagonal Gaussian of standardized values, whose density is that of the values in their own units."""

    normal: Normal
    log_scale: Float[Array, " units"]

    @property
    def mean(self) -> Float[Array, "*rows units"]:
        """Of the standardized values."""
        return self.normal.mean

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """A standardized draw."""
        return self.normal.sample(noise)

    def log_prob(self, value: Float[Array, "*more units"], observed: Array | None = None) -> Float[Array, "*result"]:
        """Of standardized values, in nats: that of N less the log of each unit's scale (the Jacobian)."""
        jacobian = jnp.broadcast_to(self.log_scale, value.shape)
        return self.normal.log_prob(value, observed) - total(jacobian, observed)


class GaussianLikelihood(Likelihood):
    """Independent Gaussians whose mean and sigma come from the network.

    Values are standardized by `shift` and `spread`, the training set's mean and standard deviation of each dimension;
    densities are those of the values in their own units. Sigma is at least 0.001 of the spread, so that the density
    can't run away. Without `shift` and `spread` values are taken as they are.
    """

    name: ClassVar[str] = "gaussian"
    words: ClassVar[str] = "Gaussian"
    outputs_per_unit: ClassVar[int] = 2
    shift: tuple[float, ...] = eqx.field(static=True, default=())
    spread: tuple[float, ...] = eqx.field(static=True, default=())

    @classmethod
    def of_data(
        cls, rows: np.ndarray, *, scale: float = 1.0, binary: bool = False, levels: Sequence[int] = ()
    ) -> "GaussianLikelihood":
        """Raises nothing: a dimension that never changes has a spread of one, one that was never seen mean zero."""
        mean, variance = moments(np.asarray(rows, np.float64))
        spread = np.where(variance > 0, np.sqrt(variance), 1.0)
        return cls(tuple(mean.tolist()), tuple(spread.tolist()), missing=has_missing(rows))

    def prepare(self, rows: Array, key: Key[Array, ""]) -> Float[Array, "*rows dim"]:
        values = rows.astype(jnp.float32)
        if not self.shift:
            return values
        return (values - jnp.asarray(self.shift, jnp.float32)) / jnp.asarray(self.spread, jnp.float32)

    def original(self, values: Float[Array, "*rows dim"]) -> Float[Array, "*rows dim"]:
        if not self.shift:
            return values
        return values * jnp.asarray(self.spread, jnp.float32) + jnp.asarray(self.shift, jnp.float32)

    def distribution(self, outputs: Float[Array, "*rows outputs"]) -> ScaledNormal:
        mean, raw = jnp.split(outputs, 2, axis=-1)
        # log(SMALLEST_SIGMA + exp(raw)), stable for any raw.
        log_sigma = jnp.logaddexp(raw, math.log(SMALLEST_SIGMA))
        return ScaledNormal(Normal(mean, log_sigma), self.log_spread(mean.shape[-1]))

    def log_spread(self, units: int) -> Float[Array, " units"]:
        """The logarithms of the spreads."""
        spread = jnp.asarray(self.spread, jnp.float32) if self.spread else jnp.ones(units)
        return jax.lax.stop_gradient(jnp.log(spread))
