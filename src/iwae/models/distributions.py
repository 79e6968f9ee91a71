"""Log densities and sampling: diagonal Gaussians and Bernoullis, summed over their last axis."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class Normal(eqx.Module):
    """A diagonal Gaussian over the last axis, N(mean, diag(exp(log_sigma))^2).

    `mean` and `log_sigma` are `[..., units]` and broadcast against what is drawn or scored.
    """

    mean: Float[Array, "*shape units"]
    log_sigma: Float[Array, "*shape units"]

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """mean + sigma * noise, for standard normal `noise`: the reparameterized draw (Kingma & Welling 2013)."""
        return self.mean + jnp.exp(self.log_sigma) * noise

    def log_prob(self, value: Float[Array, "*more units"]) -> Float[Array, "*result"]:
        """Log density in nats, summed over units."""
        standardized = (value - self.mean) * jnp.exp(-self.log_sigma)
        terms = -0.5 * jnp.square(standardized) - self.log_sigma
        return jnp.sum(terms, axis=-1) - HALF_LOG_TWO_PI * value.shape[-1]


class StandardNormal(eqx.Module):
    """N(0, I) over the last axis, whatever its size: the prior of a Gaussian top layer."""

    def sample(self, noise: Float[Array, "*shape units"]) -> Float[Array, "*shape units"]:
        """The standard normal `noise` itself."""
        return noise

    def log_prob(self, value: Float[Array, "*shape units"]) -> Float[Array, "*shape"]:
        """Log density in nats, summed over units."""
        return -0.5 * jnp.sum(jnp.square(value), axis=-1) - HALF_LOG_TWO_PI * value.shape[-1]


@jax.custom_jvp
def bernoulli_log_prob(
    value: Float[Array, "*more units"], logits: Float[Array, "*shape units"]
) -> Float[Array, "*result"]:
    """log Bernoulli(value; sigmoid(logits)) in nats, summed over units.

    `value` holds zeros and ones (or probabilities, for a cross entropy) and broadcasts against `logits`.
    Exact for logits of any size: value * logits - max(logits, 0) - log(1 + exp(-|logits|)).
    """
    return bernoulli_log_prob_and_residual(value, logits)[0]


def bernoulli_log_prob_and_residual(
    value: Float[Array, "*more units"], logits: Float[Array, "*shape units"]
) -> tuple[Float[Array, "*result"], Float[Array, "*result units"]]:
    """`bernoulli_log_prob`, and its derivative by each logit, value - sigmoid(logits).

    One exponential serves both: this is the largest array of a training step, and differentiating the formula as
    written costs several times its value.
    """
    exp = jnp.exp(-jnp.abs(logits))
    terms = value * logits - jax.nn.relu(logits) - jnp.log1p(exp)
    sigmoid = jnp.where(logits >= 0, 1.0, exp) / (1.0 + exp)
    return jnp.sum(terms, axis=-1), value - sigmoid


@bernoulli_log_prob.defjvp
def _bernoulli_log_prob_jvp(primals, tangents):  # pyright: ignore[reportUnusedFunction]
    value, logits = primals
    value_dot, logits_dot = tangents
    log_prob, residual = bernoulli_log_prob_and_residual(value, logits)
    return log_prob, jnp.sum(residual * logits_dot + logits * value_dot, axis=-1)


class Bernoulli(eqx.Module):
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

    def log_prob(self, value: Float[Array, "*more units"]) -> Float[Array, "*result"]:
        """Log probability in nats, summed over units; see `bernoulli_log_prob`."""
        return bernoulli_log_prob(value, self.logits)
