"""How a bound is differentiated: (model, x, key) -> its value and a gradient estimate.

Every estimator here is a rule that turns log weights into coefficients; `iwae.gradients` does the rest.
"""

import abc
import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from iwae import bounds
from iwae.errors import IWAEError, check_count
from iwae.gradients import Coefficients, EncoderDerivative, weighted_gradient
from iwae.model import HierarchicalVAE
from iwae.objectives import Objective

Bound = Callable[[Float[Array, "k batch"]], Float[Array, " batch"]]


class Estimate(NamedTuple):
    """`value` is the bound's mean over the batch, in nats; `gradient` estimates that of its SUM over the batch,
    as the paper's code used it, in the shape of the model: add it to go uphill.
    """

    value: Float[Array, ""]
    gradient: HierarchicalVAE


class Estimator(eqx.Module):
    """Turns a model, a batch and a key into an `Estimate`. `x` is `[batch, visible]`."""

    @abc.abstractmethod
    def __call__(self, model: HierarchicalVAE, x: Float[Array, "batch visible"], key: Key[Array, ""]) -> Estimate:
        """The bound's value and a gradient estimate, from draws that depend on `key` alone."""


class WeightedEstimator(Estimator):
    """An estimator that is given by each sample's coefficients. Subclass it to add one:

    `derivative` says which derivative the encoder's coefficients multiply (see `iwae.gradients`), and
    `coefficients` computes them. `num_samples` posterior samples are drawn per example.
    """

    derivative: ClassVar[EncoderDerivative]
    num_samples: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        """Raises IWAEError for a number of samples below one."""
        check_count("num_samples", self.num_samples)

    @abc.abstractmethod
    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        """The bound and each sample's coefficients, for log weights `[k, batch]`."""

    def __call__(self, model: HierarchicalVAE, x: Float[Array, "batch visible"], key: Key[Array, ""]) -> Estimate:
        noise = model.draw_noise(key, self.num_samples, x.shape[0])
        bound, gradient = weighted_gradient(model, x, noise, self.coefficients, self.derivative)
        return Estimate(jnp.mean(bound), gradient)


def normalized_weights(log_weights: Float[Array, "k batch"]) -> Float[Array, "k batch"]:
    """w~_i = w_i / sum_j w_j."""
    return jax.nn.softmax(log_weights, axis=0)


def into_groups(log_weights: Float[Array, "k batch"], num_groups: int) -> Float[Array, "m n batch"]:
    """`[m n, batch]` as m groups, `[m, n, batch]`."""
    return log_weights.reshape(num_groups, -1, log_weights.shape[1])


def weights_within_groups(log_weights: Float[Array, "k batch"], num_groups: int) -> Float[Array, "k batch"]:
    """Weights normalized within each of the groups, `[k, batch]`."""
    return jax.nn.softmax(into_groups(log_weights, num_groups), axis=1).reshape(log_weights.shape)


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
        return direction @ change

    directions = jnp.eye(log_weights.shape[0], dtype=log_weights.dtype)
    return jax.lax.map(of_sample, directions, batch_size=ROWS_AT_ONCE)


# Second derivatives of this many samples are taken at once: memory grows with k, not with its square.
ROWS_AT_ONCE = 128


def _check_groups(num_samples: int, num_groups: int) -> None:
    check_count("num_groups", num_groups)
    if num_samples % num_groups:
        raise IWAEError(f"{num_samples} samples can't be divided into {num_groups} groups")


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise IWAEError(f"{name} must be from 0 to 1, got {value!r}")


class OfBound(WeightedEstimator):
    """An estimator of the gradient of any bound.

    `bound` is a function of log weights `[k, batch]`, such as those of `iwae.bounds`; `jax.tree_util.Partial` sets
    parameters. With `num_groups` m > 1 it is averaged over m groups of `num_samples` / m samples each.
    """

    bound: Bound
    num_groups: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        """Raises IWAEError when the samples can't be divided into groups of one size."""
        _check_groups(self.num_samples, self.num_groups)

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
        return Coefficients(value, slope, value - slope)


class DReGAlpha(WeightedEstimator):
    """DReG(alpha): alpha w~_i + (1 - 2 alpha) w~_i^2 times the path derivative, for the encoder; IWAE's decoder.

    Tucker et al. (2019): it interpolates between DReG for the IWAE bound (alpha = 0) and RWS-DReG, the
    doubly reparameterized wake-phi update of reweighted wake-sleep, w~_i - w~_i^2 (alpha = 1). At alpha = 1/2 it
    is half of STL. Unbiased for the IWAE bound at alpha = 0, and for wake-phi at alpha = 1.
    """

    derivative: ClassVar[EncoderDerivative] = "path"
    alpha: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        """Raises IWAEError for an alpha that is not finite."""
        if not math.isfinite(self.alpha):
            raise IWAEError(f"DReG(alpha) needs a finite alpha, got {self.alpha!r}")

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        weights = normalized_weights(log_weights)
        encoder = self.alpha * weights + (1.0 - 2.0 * self.alpha) * jnp.square(weights)
        return Coefficients(bounds.iwae(log_weights), weights, encoder)


class PIWAE(WeightedEstimator):
    """PIWAE(M, K): the decoder follows L_{MK}, the encoder MIWAE(M, K), all from the same `num_samples` = M K
    samples in `num_groups` = M groups.

    Rainforth et al. (2018), section 5. Each part is unbiased for its own bound; the value is L_{MK}.
    """

    derivative: ClassVar[EncoderDerivative] = "total"
    num_groups: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        """Raises IWAEError when the samples can't be divided into groups of one size."""
        _check_groups(self.num_samples, self.num_groups)

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        encoder = weights_within_groups(log_weights, self.num_groups) / self.num_groups
        return Coefficients(bounds.iwae(log_weights), normalized_weights(log_weights), encoder)


class PIWAEDReG(WeightedEstimator):
    """PIWAE(M, K) whose encoder follows MIWAE(M, K) by DReG: the squares of the weights normalized within groups.

    Rainforth et al. (2018), section 5; Tucker et al. (2019). Unbiased as `PIWAE` is.
    """

    derivative: ClassVar[EncoderDerivative] = "path"
    num_groups: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        """Raises IWAEError when the samples can't be divided into groups of one size."""
        _check_groups(self.num_samples, self.num_groups)

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        encoder = jnp.square(weights_within_groups(log_weights, self.num_groups)) / self.num_groups
        return Coefficients(bounds.iwae(log_weights), normalized_weights(log_weights), encoder)


class ReweightedWakeSleep(WeightedEstimator):
    """RWS: the decoder's gradient is IWAE's (wake-theta); the encoder goes up sum_i w~_i grad_phi log q(h_i | x)
    (wake-phi), which lowers KL(p || q).

    Bornschein & Bengio (2015). `sleep` in [0, 1] is the share of sleep-phi, grad_phi log q(h | x) at x and h dreamt
    by the model, one draw for each example; 1 is the wake-sleep algorithm's encoder. The wake updates are biased for
    the gradients they stand for, by O(1/k); as an update of the IWAE bound wake-phi is not meant at all.
    """

    derivative: ClassVar[EncoderDerivative] = "score"
    sleep: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        """Raises IWAEError for a share outside of [0, 1], and for a single sample to compare while awake."""
        _check_share("sleep", self.sleep)
        check_count("num_samples", self.num_samples, 2 if self.sleep < 1.0 else 1, " for wake-phi")

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        weights = normalized_weights(log_weights)
        return Coefficients(bounds.iwae(log_weights), weights, (1.0 - self.sleep) * weights)

    def __call__(self, model: HierarchicalVAE, x: Float[Array, "batch visible"], key: Key[Array, ""]) -> Estimate:
        if self.sleep == 0.0:
            return super().__call__(model, x, key)
        wake_key, sleep_key = jax.random.split(key)
        value, gradient = super().__call__(model, x, wake_key)
        dream, latents = model.sample_joint(sleep_key, x.shape[0])
        sleep = jax.grad(lambda m: self.sleep * jnp.sum(m.log_posterior(dream, latents)))(model)
        return Estimate(value, jax.tree.map(jnp.add, gradient, sleep))


class VIMCO(WeightedEstimator):
    """VIMCO: the score-function gradient of L_k with a baseline for each sample, computed from the others.

    Sample i's signal is L_k minus what L_k would be with w_i replaced by the geometric mean of the other weights
    (Mnih & Rezende 2016, equation 10). Unbiased, for discrete latents too; k of at least 2.
    """

    derivative: ClassVar[EncoderDerivative] = "score"

    def __check_init__(self) -> None:
        """Raises IWAEError for a single sample, which has no others."""
        check_count("num_samples", self.num_samples, 2, " for VIMCO")

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        count = self.num_samples
        bound, weights = bounds.iwae(log_weights), normalized_weights(log_weights)
        # A sum less its own -inf would be NaN.
        dead = jnp.isneginf(log_weights)
        alive = jnp.where(dead, 0.0, log_weights)
        others = (jnp.sum(alive, axis=0) - alive) / (count - 1)
        others = jnp.where(jnp.sum(dead, axis=0) > dead, -jnp.inf, others)
        baseline = jnp.logaddexp(bounds.leave_one_out(log_weights), others) - math.log(count)
        return Coefficients(bound, weights, bound - baseline - weights)


class OVIS(WeightedEstimator):
    """OVIS~: the score-function gradient of L_k with the asymptotically optimal control variate.

    Lievin et al. (2020), equation 17: c_i = log Z_{-i} - gamma w~_i + (1 - gamma) log(1 - 1/k), with Z_{-i} the mean
    of the other weights. gamma = 1 is for effective sample sizes well above 1, gamma = 0 for those near 1. Unbiased
    at gamma = 0 only: otherwise the ENCODER's gradient lacks -gamma sum_i w~_i grad log q. k of at least 2.
    """

    derivative: ClassVar[EncoderDerivative] = "score"
    gamma: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        """Raises IWAEError for a gamma outside of [0, 1], and for a single sample, which has no others."""
        _check_share("gamma", self.gamma)
        check_count("num_samples", self.num_samples, 2, " for OVIS")

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        count = self.num_samples
        bound, weights = bounds.iwae(log_weights), normalized_weights(log_weights)
        others = bounds.leave_one_out(log_weights) - math.log(count - 1)
        signal = bound - others - (1.0 - self.gamma) * (weights + math.log1p(-1.0 / count))
        return Coefficients(bound, weights, signal)


class OVISMonteCarlo(WeightedEstimator):
    """OVIS-MC: the optimal control variate estimated with the last `auxiliary` of the `num_samples` samples.

    Lievin et al. (2020), equation 12: sample i's signal d_i = L_k - w~_i minus the mean of what it would be with
    h_i replaced by each of the auxiliary samples, which serve for nothing else. Unbiased for L_k with
    k = `num_samples` - `auxiliary`, of at least 2.
    """

    derivative: ClassVar[EncoderDerivative] = "score"
    auxiliary: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        """Raises IWAEError unless there is an auxiliary sample, and two others."""
        check_count("auxiliary", self.auxiliary)
        check_count("num_samples", self.num_samples, self.auxiliary + 2, f" with {self.auxiliary} auxiliary")

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        count = self.num_samples - self.auxiliary
        own, auxiliary = log_weights[:count], log_weights[count:]
        bound, weights = bounds.iwae(own), normalized_weights(own)
        log_sums = jnp.logaddexp(bounds.leave_one_out(own)[:, None], auxiliary)
        baseline = jnp.mean(log_sums - math.log(count) - jnp.exp(auxiliary - log_sums), axis=1)
        unused = jnp.zeros_like(auxiliary)
        return Coefficients(
            bound,
            jnp.concatenate([weights, unused]),
            jnp.concatenate([bound - weights - baseline, unused]),
        )


def make_estimator(objective: Objective) -> Estimator:
    """The estimator that an `Objective` names."""
    k, chosen = objective.k, objective.estimator
    match objective.name:
        case "rws" if chosen == "score":
            assert objective.sleep is not None
            return ReweightedWakeSleep(k, objective.sleep)
        case "rws":
            return DReGAlpha(k, 1.0)
        case "piwae":
            assert objective.m is not None
            return (PIWAE if chosen == "reparameterized" else PIWAEDReG)(objective.m * k, objective.m)
        case "vimco":
            return VIMCO(k)
        case "ovis":
            assert objective.gamma is not None
            return OVIS(k, objective.gamma)
        case "iwae" if chosen == "dreg":
            assert objective.alpha is not None
            return DReGAlpha(k, objective.alpha)
    kinds: dict[str, type[OfBound]] = {
        "reparameterized": Reparameterized,
        "stl": StickingTheLanding,
        "dreg": DoublyReparameterized,
        "score": ScoreFunction,
    }
    assert chosen is not None
    groups = objective.m or 1
    return kinds[chosen](groups * k, bound_of(objective), groups)


def bound_of(objective: Objective) -> Bound:
    """The function of log weights `[k, batch]` whose gradient is estimated; miwae's is that of one group."""
    match objective.name:
        case "ciwae":
            return Partial(bounds.ciwae, beta=objective.beta)
        case "renyi":
            return Partial(bounds.renyi, alpha=objective.alpha)
        case "elbo":
            return bounds.elbo
        case "vr-max":
            return bounds.vr_max
        case "jvi":
            return bounds.jvi
        case _:
            return bounds.iwae
