"""Numbers in [0, 1], grey values among them, as what they are: the continuous Bernoulli."""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float, Key

from iwae.errors import IWAEError
from iwae.models.distributions import total
from iwae.models.likelihoods.base import Likelihood, has_missing, moments, seen

# Closer to zero than this, logits are treated by the first terms of a series.
SMALL = 0.05
BISECTIONS = 60
LARGEST_LOGIT = 1e3


class ContinuousBernoulli(eqx.Module):
    """Independent densities on [0, 1] proportional to exp(logit x) over the last axis (Loaiza-Ganem & Cunningham 2019,
    "The continuous Bernoulli: fixing a pervasive error in variational autoencoders"), of values that are `scale` times
    those in the units of the rows.
    """

    logits: Float[Array, "*shape units"]
    scale: float = eqx.field(static=True, default=1.0)

    @property
    def mean(self) -> Float[Array, "*shape units"]:
        is_small, size = self._parts()
        # 1/2 + coth(l/2) / 2 - 1/l, odd around 1/2.
        large = 0.5 / jnp.tanh(size / 2) - 1.0 / size
        return 0.5 + jnp.where(is_small, self.logits / 12, jnp.sign(self.logits) * large)

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """The quantile of Phi(noise), for standard normal `noise`. No gradient passes through it."""
        is_small, size = self._parts()
        is_positive = self.logits > 0
        # Of the mirror image, whose logit is negative, where it is positive.
        level = jnp.where(is_positive, ndtr(-noise), ndtr(noise))
        large = -jnp.log1p(level * jnp.expm1(-size)) / size
        small = level - jnp.abs(self.logits) * level * (1.0 - level) / 2
        found = jnp.where(is_small, small, large)
        return jax.lax.stop_gradient(jnp.clip(jnp.where(is_positive, 1.0 - found, found), 0.0, 1.0))

    def log_prob(self, value: Float[Array, "*more units"], observed: Array | None = None) -> Float[Array, "*result"]:
        """Log density in nats, in the units of the rows, summed over units, or over those that `observed` has."""
        is_small, size = self._parts()
        # log of the integral of exp(l (x - 1/2)): that of sinh(l/2) / (l/2).
        large = size / 2 + jnp.log(-jnp.expm1(-size)) - jnp.log(size)
        log_integral = jnp.where(is_small, jnp.square(self.logits) / 24, large)
        return total((value - 0.5) * self.logits - log_integral + np.log(self.scale), observed)

    def _parts(self) -> tuple[Array, Array]:
        """Which logits are small, and the sizes of the others: no branch that isn't taken has infinite derivatives."""
        is_small = jnp.abs(self.logits) < SMALL
        return is_small, jnp.where(is_small, 1.0, jnp.abs(self.logits))


class ContinuousBernoulliLikelihood(Likelihood):
    """Independent continuous Bernoullis whose logits come from the network.

    Rows are numbers in [0, 1], or integers that are multiplied by `scale` (1/255 for grey values); densities are those
    of the rows as they are.
    """

    name: ClassVar[str] = "continuous-bernoulli"
    words: ClassVar[str] = "continuous Bernoulli"
    scale: float = eqx.field(static=True, default=1.0)

    @classmethod
    def of_data(
        cls, rows: np.ndarray, *, scale: float = 1.0, binary: bool = False, levels: Sequence[int] = ()
    ) -> "ContinuousBernoulliLikelihood":
        is_grey = rows.dtype == np.uint8 and rows.max(initial=0) > 1
        return cls(1 / 255 if is_grey else 1.0, missing=has_missing(rows))

    def check(self, rows: np.ndarray, what: str) -> None:
        super().check(rows, what)
        values = seen(rows)
        if values.size and (values.min() < 0 or values.max() * self.scale > 1):
            raise IWAEError(
                f"the {what} has values from {values.min():g} to {values.max():g}, but the continuous Bernoulli"
                " likelihood scores numbers in [0, 1] or uint8 grey values"
            )

    def prepare(self, rows: Array, key: Key[Array, ""]) -> Float[Array, "*rows dim"]:
        return rows.astype(jnp.float32) * self.scale

    def original(self, values: Float[Array, "*rows dim"]) -> Float[Array, "*rows dim"]:
        return values / self.scale

    def distribution(self, outputs: Float[Array, "*rows dim"]) -> ContinuousBernoulli:
        return ContinuousBernoulli(outputs, self.scale)

    def initial_bias(self, rows: np.ndarray) -> np.ndarray:
        """The logits that give the training means, of from 0.01 to 0.99."""
        values = np.asarray(rows, np.float64) * self.scale
        mean = np.clip(np.where(np.isnan(values).all(axis=0), 0.5, moments(values)[0]), 0.01, 0.99)
        low, high = np.full(mean.shape, -LARGEST_LOGIT), np.full(mean.shape, LARGEST_LOGIT)
        for _ in range(BISECTIONS):
            # An odd end: the middle is never zero.
            middle = (low + high) / 2 + 1e-9
            is_below = 0.5 + 0.5 / np.tanh(middle / 2) - 1 / middle < mean
            low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
        return (low + high) / 2
