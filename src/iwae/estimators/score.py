"""Estimators by the score of q, which need no derivative through samples: RLOO, reweighted wake-sleep,
the thermodynamic objective's, VIMCO, OVIS.
"""

import math
from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae import bounds
from iwae.errors import IWAEError, check_count
from iwae.estimators.base import Estimate, WeightedEstimator, normalized_weights, traced
from iwae.estimators.bound import slopes
from iwae.estimators.gradients import Coefficients, EncoderDerivative
from iwae.models.vae import HierarchicalVAE


def _share(name: str, value: float) -> Float[Array, ""]:
    if not 0.0 <= value <= 1.0:
        raise IWAEError(f"{name} must be from 0 to 1, got {value!r}")
    return traced(value)


class ReweightedWakeSleep(WeightedEstimator):
    """RWS: the decoder's gradient is IWAE's (wake-theta); the encoder goes up sum_i w~_i grad_phi log q(h_i | x)
    (wake-phi), which lowers KL(p || q).

    Bornschein & Bengio (2015). `sleep` in [0, 1] is the share of sleep-phi, grad_phi log q(h | x) at x and h dreamt
    by the model, one draw for each example; 1 is the wake-sleep algorithm's encoder. The wake updates are biased for
    the gradients they stand for, by O(1/k); as an update of the IWAE bound wake-phi is not meant at all.
    """

    derivative: ClassVar[EncoderDerivative] = "score"
    sleep: Float[Array, ""] | None = eqx.field(
        converter=lambda share: _share("sleep", share) if share else None, default=0.0
    )

    def __check_init__(self) -> None:
        """Raises IWAEError for a share outside of [0, 1], and for a single sample to compare while awake."""
        check_count("num_samples", self.num_samples, 1 if self.sleep == 1.0 else 2, " for wake-phi")

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        weights = normalized_weights(log_weights)
        awake = weights if self.sleep is None else (1.0 - self.sleep) * weights
        return Coefficients(bounds.iwae(log_weights), weights, awake)

    def __call__(self, model: HierarchicalVAE, x: Float[Array, "batch visible"], key: Key[Array, ""]) -> Estimate:
        if self.sleep is None:
            return super().__call__(model, x, key)
        wake_key, sleep_key = jax.random.split(key)
        value, gradient = super().__call__(model, x, wake_key)
        dream, latents = model.sample_joint(sleep_key, x.shape[0])
        share = self.sleep
        sleep = eqx.filter_grad(lambda m: -share * jnp.mean(m.log_posterior(dream, latents)))(model)
        return Estimate(value, jax.tree.map(jnp.add, gradient, sleep))


class LeaveOneOut(WeightedEstimator):
    """RLOO, the score-function gradient of the ELBO with a baseline for each sample, the mean of the others' log
    weights: the encoder's coefficients are (log w_i - mean log w) / (k - 1).

    Kool, van Hoof & Welling (2019). It is also VarGrad, the gradient of half the variance of
    log w (Richter et al. 2020). Unbiased, for discrete latents too; k of at least 2.
    """

    derivative: ClassVar[EncoderDerivative] = "score"
    least_samples: ClassVar[int] = 2

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        bound = bounds.elbo(log_weights)
        deviations = (log_weights - bound) / (self.num_samples - 1)
        return Coefficients(bound, jnp.full_like(log_weights, 1.0 / self.num_samples), deviations)


class ThermodynamicScore(WeightedEstimator):
    """The gradient of the thermodynamic variational objective by covariances under w^beta, as in its paper: for the
    encoder the sum over intervals of v_i ((1 - beta) (log w_i - mean) - 1) times the score, v being the normalized
    weights w^beta; for the decoder the derivative of the estimate.

    Masrani, Le & Wood (2019). For discrete latents too. It is consistent: biased by O(1/k), as the
    estimates of expectations under w^beta are.
    """

    derivative: ClassVar[EncoderDerivative] = "score"
    partitions: int = eqx.field(static=True)
    first_beta: Float[Array, ""] = eqx.field(converter=traced)

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        value, slope = slopes(partial(bounds.tvo, partitions=self.partitions, first_beta=self.first_beta), log_weights)
        betas = bounds.tvo_betas(self.partitions, self.first_beta)[:, None, None]
        widths = jnp.diff(betas, axis=0, append=1.0)
        shares = jax.nn.softmax(betas * log_weights, axis=1)
        deviations = log_weights - jnp.sum(shares * log_weights, axis=1, keepdims=True)
        return Coefficients(value, slope, jnp.sum(widths * shares * ((1.0 - betas) * deviations - 1.0), axis=0))


class VIMCO(WeightedEstimator):
    """VIMCO: the score-function gradient of L_k with a baseline for each sample, computed from the others.

    Sample i's signal is L_k minus what L_k would be with w_i replaced by the geometric mean of the other weights
    (Mnih & Rezende 2016, equation 10). Unbiased, for discrete latents too; k of at least 2.
    """

    derivative: ClassVar[EncoderDerivative] = "score"
    least_samples: ClassVar[int] = 2

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
    at gamma = 0 only: otherwise the ENCODER's gradient lacks -gamma sum_i w~_i grad log q. k of at least 2, and gamma
    from 0 to 1.
    """

    derivative: ClassVar[EncoderDerivative] = "score"
    least_samples: ClassVar[int] = 2
    gamma: Float[Array, ""] = eqx.field(converter=partial(_share, "gamma"), default=1.0)

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
