"""Log densities and sampling: diagonal Gaussians and Bernoullis, summed over their last axis."""

import math
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


@runtime_checkable
class Distribution(Protocol):
    """A distribution of independent units along the last axis. A new one subclasses `Distribution` or has its methods:
    `log_prob` and `mean` suffice to train and measure, `sample` to draw.
    """

    @property
    def mean(self) -> Array:
        """Of every unit."""
        ...

    def sample(self, noise: Array) -> Array:
        """A draw made from standard normal `noise` of the same shape, which is one number a unit."""
        ...

    def log_prob(self, value: Array, observed: Array | None = None) -> Array:
        """Log density in nats, summed over units, or over those that `observed` (bool) has."""
        ...


class Prior(eqx.Module):
    """The distribution of the top layer, p(h_L). A new one subclasses this and gives `log_prob`, `sample` and
    `resting`; the rest has defaults.
    """

    def log_prob(self, value: Array) -> Array:
        """Log density in nats, summed over units."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `log_prob`")

    def sample(self, noise: Array) -> Array:
        """A draw made from standard normal `noise`, `noise_width` numbers along the last axis."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `sample`")

    def resting(self, units: int) -> Array:
        """The values at which so many units are left when others are moved."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `resting`")

    def keep(self, mask: Array) -> "Prior":
        """The prior of some of the units, for pruning."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `keep`")

    def given(self, layer: Any) -> "Prior":
        """The prior where `layer` is the encoder's top layer, on which it may depend."""
        return self

    def noise_width(self, units: int) -> int:
        """How many standard normals a draw of so many units is made from."""
        return units

    @property
    def num_codes(self) -> int:
        """How many training examples, as inputs of the encoder's top layer, it starts from."""
        return 0

    def starting_at(self, codes: Array) -> "Prior":
        """The prior before training, for such inputs `[num_codes, inputs]`."""
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The options of `Architecture` that it was made with."""
        return {}


def total(terms: Float[Array, "*shape units"], observed: Array | None = None) -> Float[Array, "*shape"]:
    """The sum over units, or over those that `observed` has."""
    return jnp.sum(terms if observed is None else jnp.where(observed, terms, 0.0), axis=-1)


class Normal(eqx.Module):
    """A diagonal Gaussian over the last axis, N(mean, diag(exp(log_sigma))^2).

    `mean` and `log_sigma` are `[..., units]` and broadcast against what is drawn or scored.
    """

    mean: Float[Array, "*shape units"]
    log_sigma: Float[Array, "*shape units"]

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """mean + sigma * noise, for standard normal `noise`: the reparameterized draw (Kingma & Welling 2013)."""
        return self.mean + jnp.exp(self.log_sigma) * noise

    def noise_of(self, value: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """The noise whose draw is `value`."""
        return (value - self.mean) * jnp.exp(-self.log_sigma)

    def log_prob(self, value: Float[Array, "*more units"], observed: Array | None = None) -> Float[Array, "*result"]:
        """Log density in nats, summed over units, or over those that `observed` has."""
        terms = -0.5 * jnp.square(self.noise_of(value)) - self.log_sigma
        if observed is not None:
            return total(terms - HALF_LOG_TWO_PI, observed)
        return jnp.sum(terms, axis=-1) - HALF_LOG_TWO_PI * value.shape[-1]

    def at(self, index: Array) -> "Normal":
        """The distributions of those rows."""
        return Normal(self.mean[index], self.log_sigma[index])


class StandardNormal(Prior):
    """N(0, I) over the last axis, whatever its size: the prior of a Gaussian top layer."""

    @classmethod
    def create(cls, units: int, inputs: int, key: Key[Array, ""]) -> "StandardNormal":
        """It has nothing to learn."""
        return cls()

    def sample(self, noise: Float[Array, "*shape units"]) -> Float[Array, "*shape units"]:
        """The standard normal `noise` itself."""
        return noise

    def log_prob(self, value: Float[Array, "*shape units"]) -> Float[Array, "*shape"]:
        """Log density in nats, summed over units."""
        return -0.5 * jnp.sum(jnp.square(value), axis=-1) - HALF_LOG_TWO_PI * value.shape[-1]

    def resting(self, units: int) -> Float[Array, " units"]:
        """The mean of so many units: where they are left when others are moved."""
        return jnp.zeros(units)

    def keep(self, mask: Array) -> "StandardNormal":
        """The prior of some of the units."""
        return self


@jax.custom_jvp
def bernoulli_log_prob(
    value: Float[Array, "*more units"], logits: Float[Array, "*shape units"]
) -> Float[Array, "*result"]:
    """log Bernoulli(value; sigmoid(logits)) in nats, summed over units.

    `value` holds zeros and ones (or probabilities, for a cross entropy) and broadcasts against `logits`.
    For logits of any size: value * logits - max(logits, 0) - log(1 + exp(-|logits|)), in float32 within 6e-8 for each
    unit beside the rounding of the sum.
    """
    return bernoulli_log_prob_and_residual(value, logits)[0]


def bernoulli_log_prob_and_residual(
    value: Float[Array, "*more units"], logits: Float[Array, "*shape units"], observed: Array | None = None
) -> tuple[Float[Array, "*result"], Float[Array, "*result units"]]:
    """`bernoulli_log_prob`, and its derivative by each logit, value - sigmoid(logits); of the units that `observed`
    has, if it is given.

    One exponential serves both: this is the largest array of a training step, and differentiating the formula as
    written costs several times its value.
    """
    exp = jnp.exp(-jnp.abs(logits))
    terms, factors = value * logits - jax.nn.relu(logits), 1.0 + exp
    residual = value - jnp.where(logits >= 0, 1.0, exp) / factors
    if observed is not None:
        residual, factors = jnp.where(observed, residual, 0.0), jnp.where(observed, factors, 1.0)
    return total(terms, observed) - _sum_of_logs(factors), residual


# 2 to this power is far below the largest number of float32.
FACTORS = 16


def _sum_of_logs(factors: Float[Array, "*shape units"]) -> Float[Array, "*shape"]:
    """The sum over units of the logarithms of numbers from 1 to 2, as those of products of some: a logarithm takes as
    long as several products, and each of these rounds as log(1 + exp) itself would, by 6e-8.
    """
    whole = factors.shape[-1] // FACTORS * FACTORS
    groups = factors[..., :whole].reshape(*factors.shape[:-1], -1, FACTORS)
    rest = jnp.log(jnp.prod(factors[..., whole:], axis=-1))
    return jnp.sum(jnp.log(jnp.prod(groups, axis=-1)), axis=-1) + rest


@bernoulli_log_prob.defjvp
def _bernoulli_log_prob_jvp(primals, tangents):  # pyright: ignore[reportUnusedFunction]
    value, logits = primals
    value_dot, logits_dot = tangents
    log_prob, residual = bernoulli_log_prob_and_residual(value, logits)
    return log_prob, jnp.sum(residual * logits_dot + logits * value_dot, axis=-1)


class Bernoulli(Prior):
    """Independent Bernoullis over the last axis, given by their logits `[..., units]`."""

    logits: Float[Array, "*shape units"]

    @property
    def mean(self) -> Float[Array, "*shape units"]:
        """The probability of a one."""
        return jax.nn.sigmoid(self.logits)

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """Zeros and ones: one where Phi(noise) is below the probability.

        `noise` is standard normal, as for `Normal`, so that a hierarchy takes noise of one kind whatever its
        layers. No gradient passes through a draw.
        """
        return jax.lax.stop_gradient((jax.scipy.special.ndtr(noise) < self.mean).astype(noise.dtype))

    def log_prob(self, value: Float[Array, "*more units"], observed: Array | None = None) -> Float[Array, "*result"]:
        """Log probability in nats, summed over units, or over those that `observed` has; see `bernoulli_log_prob`."""
        if observed is None:
            return bernoulli_log_prob(value, self.logits)
        return bernoulli_log_prob_and_residual(value, self.logits, observed)[0]

    def resting(self, units: int) -> Float[Array, " units"]:
        """The probabilities: where units are left when others are moved."""
        return self.mean

    def keep(self, mask: Array) -> "Bernoulli":
        """The prior of some of the units."""
        return Bernoulli(self.logits[mask])
