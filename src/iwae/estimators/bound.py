"""Estimators of the gradient of any bound, from its derivatives by the log weights."""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from iwae.errors import IWAEError, check_count
from iwae.estimators.base import WeightedEstimator, check_groups, into_groups
from iwae.estimators.gradients import Coefficients, EncoderDerivative
from iwae.models.matmul import product

Bound = Callable[[Float[Array, "k batch"]], Float[Array, " batch"]]


def slopes(
    bound: Bound, log_weights: Float[Array, "k batch"]
) -> tuple[Float[Array, " batch"], Float[Array, "k batch"]]:
    """A bound's value `[batch]` and its derivative by each log weight, c_i, `[k, batch]`.

    Raises IWAEError for a function that does not make one number of each example's samples.
    """
    value, pull = jax.vjp(bound, log_weights)
    if jnp.shape(value) != log_weights.shape[1:]:
        raise IWAEError(
            f"a bound turns log weights [k, batch] into [batch], but this one made {list(jnp.shape(value))} of"
            f" {list(log_weights.shape)}: reduce over axis 0"
        )
    return value, pull(jnp.ones_like(value))[0]


def curvatures(bound: Bound, log_weights: Float[Array, "k batch"]) -> Float[Array, "k batch"]:
    """A bound's second derivative by each log weight, d c_i / d log w_i, `[k, batch]`, in O(k^2 batch) operations."""

    def of_sample(direction: Float[Array, " k"]) -> Float[Array, " batch"]:
        tangent = jnp.broadcast_to(direction[:, None], log_weights.shape)
        change = jax.jvp(lambda w: slopes(bound, w)[1], (log_weights,), (tangent,))[1]
        return product(direction, change)

    directions = jnp.eye(log_weights.shape[0], dtype=log_weights.dtype)
    return jax.lax.map(of_sample, directions, batch_size=ROWS_AT_ONCE)


# Second derivatives of this many samples are taken at once: memory grows with k, not with its square.
ROWS_AT_ONCE = 128


class OfBound(WeightedEstimator):
    """An estimator of the gradient of any bound.

    `bound` is a function of log weights `[k, batch]`, such as those of `iwae.bounds`; `jax.tree_util.Partial` sets
    parameters, and those that are arrays are not compiled in. With `num_groups` m > 1 it is averaged over m groups of
    `num_samples` / m samples each.
    """

    bound: Bound
    num_groups: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        """Raises IWAEError for a bound that is no function, and samples that can't be divided into equal groups."""
        check_count("num_samples", self.num_samples)
        if not callable(self.bound):
            raise IWAEError(f"a bound is a function of log weights [k, batch], as in iwae.bounds, got {self.bound!r}")
        check_groups(self.num_samples, self.num_groups)

    def grouped(self, log_weights: Float[Array, "k batch"]) -> Float[Array, " batch"]:
        """The bound of all log weights `[k, batch]`, averaged over the groups."""
        if self.num_groups == 1:
            return self.bound(log_weights)
        return jnp.mean(jax.vmap(self.bound)(into_groups(log_weights, self.num_groups)), axis=0)


class Reparameterized(OfBound):
    """The gradient of a bound through reparameterized samples (Burda et al. 2015, equation 13).

    Coefficients c_i = d bound / d log w_i for both groups of parameters, on the total derivative: for the IWAE
    bound the normalized weights w~_i, for the ELBO 1/k. Unbiased.
    """

    derivative: ClassVar[EncoderDerivative] = "total"

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        value, slope = slopes(self.grouped, log_weights)
        return Coefficients(value, slope, slope)


class StickingTheLanding(OfBound):
    """STL: the reparameterized gradient without its score term, sum_i c_i times the path derivative.

    Roeder, Wu & Duvenaud (2017). Unbiased for the ELBO, whose score term has expectation zero, and with zero
    variance at the exact posterior; for k > 1 of other bounds the ENCODER's gradient is biased.
    """

    derivative: ClassVar[EncoderDerivative] = "path"

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        value, slope = slopes(self.grouped, log_weights)
        return Coefficients(value, slope, slope)


class DoublyReparameterized(OfBound):
    """DReG: the score term reparameterized a second time, c_i - d c_i / d log w_i times the path derivative.

    Tucker et al. (2019), who give it for the IWAE bound, where that is w~_i^2. The same step, E[c_i grad log q] =
    E[d c_i / d log w_i path_i], holds for every bound whose c_i are continuous: for the ELBO the result is STL, for
    CIWAE beta / k + (1 - beta) w~_i^2, for VR-alpha alpha v_i + (1 - alpha) v_i^2 with v the normalized powers.
    Unbiased for these; biased where c_i jumps, as for a maximum or a median.
    """

    derivative: ClassVar[EncoderDerivative] = "path"

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        value, slope = slopes(self.grouped, log_weights)
        return Coefficients(value, slope, slope - curvatures(self.grouped, log_weights))


class ScoreFunction(OfBound):
    """The score-function estimator (REINFORCE; Williams 1992), without a baseline: bound - c_i times
    grad_phi log q(h_i | x). Unbiased, for discrete latents too, and the noisiest of all: what others are compared to.
    """

    derivative: ClassVar[EncoderDerivative] = "score"

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        value, slope = slopes(self.grouped, log_weights)
        # A sample answers for its own group's part of the average.
        parts = jax.vmap(self.bound)(into_groups(log_weights, self.num_groups)) / self.num_groups
        return Coefficients(value, slope, jnp.repeat(parts, len(log_weights) // self.num_groups, axis=0) - slope)
