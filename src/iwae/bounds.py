"""Bounds on log p(x) as pure functions of log weights: `[k, batch]` in, `[batch]` nats out.

log w_i = log p(x, h_i) - log q(h_i | x) for k independent samples h_i ~ q(h | x), along the first axis. Every
function's value is exact for -inf (a sample that the model rules out) and up to 1e30 in size, and commutes with adding
a constant to all log weights. Its derivatives are finite wherever its value is. Any function of this signature is a
bound to the estimators.

A parameter may be an array, which a compiled function takes as an argument: another value needs no compilation. There
is no derivative by it.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from iwae.errors import IWAEError, check_count

# Where exp(d) of all deviations d from the mean is this close to 1, the log of their mean is taken by expm1 and
# log1p, which keep the digits that a log-sum-exp divided by a small number loses.
NEARLY_FLAT = 0.5

Parameter = float | int | Float[Array, ""]


def elbo(log_weights: Float[Array, "k *batch"]) -> Float[Array, "*batch"]:
    """The variational lower bound averaged over k samples: (1/k) sum_i log w_i.

    Burda et al. (2015), equation 3; Kingma & Welling (2013).
    """
    if log_weights.shape[0] == 1:
        return log_weights[0]
    return jnp.mean(log_weights, axis=0)


def iwae(log_weights: Float[Array, "k *batch"]) -> Float[Array, "*batch"]:
    """The importance weighted bound L_k: log (1/k) sum_i w_i, by a stable log-sum-exp.

    Burda et al. (2015), equation 8. L_1 is the variational lower bound.
    """
    if log_weights.shape[0] == 1:
        return log_weights[0]
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])


def miwae(log_weights: Float[Array, "m k *batch"]) -> Float[Array, "*batch"]:
    """MIWAE(M, K): the average of M independent importance weighted bounds of K samples each,
    (1/M) sum_m log (1/K) sum_i w_mi, from log weights `[m, k, batch]`.

    Rainforth et al. (2018), "Tighter variational bounds are not necessarily better", section 5. MIWAE(1, K) is
    L_K, MIWAE(M, 1) the ELBO. The method for missing data that is called MIWAE too (Mattei & Frellsen 2019) is
    `iwae.impute`, with any bound.
    """
    return jnp.mean(jax.vmap(iwae)(log_weights), axis=0)


def ciwae(log_weights: Float[Array, "k *batch"], beta: Parameter) -> Float[Array, "*batch"]:
    """CIWAE(beta): beta ELBO + (1 - beta) L_k, both from the same samples, for beta in [0, 1].

    Rainforth et al. (2018), section 5. Raises IWAEError for another beta: the result would bound nothing.
    """
    if _is_known(beta) and not 0.0 <= float(beta) <= 1.0:
        raise IWAEError(f"CIWAE's beta must be from 0 to 1, got {float(beta)!r}")
    beta, average = jax.lax.stop_gradient(beta), elbo(log_weights)
    # The ends are exact, and free of 0 * inf.
    mixed = jnp.where(beta == 0.0, 0.0, beta * average) + jnp.where(beta == 1.0, 0.0, (1.0 - beta) * iwae(log_weights))
    # A beta that float32 holds to be zero would make this NaN.
    return jnp.where((beta > 0.0) & jnp.isneginf(average), average, mixed)


def _is_known(parameter: Parameter) -> bool:
    return not isinstance(parameter, Tracer)


def renyi(log_weights: Float[Array, "k *batch"], alpha: Parameter) -> Float[Array, "*batch"]:
    """The variational Renyi bound VR-alpha: 1/(1 - alpha) log (1/k) sum_i w_i^(1 - alpha), for any real alpha.

    Li & Turner (2016), "Renyi divergence variational inference". alpha = 0 is L_k; the limit alpha = 1
    is the ELBO; alpha to -infinity is `vr_max`. Falls in alpha; a lower bound on log p(x), in expectation, for
    alpha >= 0, an estimate of an upper one for alpha < 0.

    Raises IWAEError for an alpha that is not finite.
    """
    if _is_known(alpha) and not math.isfinite(alpha):
        raise IWAEError(f"VR-alpha needs a finite alpha, got {float(alpha)!r}: vr_max is its limit at -infinity")
    return _power_mean(log_weights, 1.0 - alpha)


@jax.custom_jvp
def _power_mean(log_weights: Float[Array, "k *batch"], power: Parameter) -> Float[Array, "*batch"]:
    """(1/power) log (1/k) sum_i w_i^power, and its limit where the power is zero, the mean of log w_i.

    With its own derivative, sum_i v_i d log w_i where v are the weights' powers normalized: differentiating either
    branch as written would lose it where the other one is taken.
    """
    count = log_weights.shape[0]
    peak = _finite_peak(log_weights)
    shifted = log_weights - peak
    general = (jax.nn.logsumexp(power * shifted, axis=0) - math.log(count)) / power
    mean = jnp.mean(shifted, axis=0)
    deviations = power * (shifted - mean)
    flat = mean + jnp.log1p(jnp.mean(jnp.expm1(deviations), axis=0)) / power
    nearly_flat = jnp.max(jnp.abs(deviations), axis=0) < NEARLY_FLAT
    # To the bit, what they are the special cases of.
    found = jnp.where(power == 1.0, iwae(log_weights), jnp.where(nearly_flat, flat, general) + peak)
    return jnp.where(power == 0.0, elbo(log_weights), found)


@_power_mean.defjvp
def _power_mean_jvp(  # pyright: ignore[reportUnusedFunction]
    primals: tuple[Array, Parameter], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (log_weights, power), (tangent, _) = primals, tangents
    powers = jnp.where(power == 0.0, 0.0, power * (log_weights - _finite_peak(log_weights)))
    return _power_mean(log_weights, power), jnp.sum(jax.nn.softmax(powers, axis=0) * tangent, axis=0)


def _finite_peak(log_weights: Float[Array, "k *batch"]) -> Float[Array, "*batch"]:
    """The largest log weight, or 0 where it is infinite: what to shift by, so that a power can't overflow."""
    peak = jnp.max(log_weights, axis=0)
    return jnp.where(jnp.isfinite(peak), peak, 0.0)


def vr_max(log_weights: Float[Array, "k *batch"]) -> Float[Array, "*batch"]:
    """VR-max: max_i log w_i, the limit of `renyi` for alpha to -infinity.

    Li & Turner (2016). Above L_k, and above log p(x) for large k: a training objective, not a bound.
    """
    return jnp.max(log_weights, axis=0)


def jvi(log_weights: Float[Array, "k *batch"]) -> Float[Array, "*batch"]:
    """JVI-1, the jackknife's correction of L_k: k L_k - (k - 1)/k sum_i L_{k-1} without sample i.

    Nowozin (2018), "Debiasing evidence approximations". Its bias is O(1/k^2) where that of L_k is O(1/k), and it
    is NOT a bound: it lies above log p(x) as well as below. -inf only where every weight is zero; +inf where
    just one is not.

    Raises IWAEError for a single sample, from which there is nothing to leave out.
    """
    count = log_weights.shape[0]
    if count < 2:
        raise IWAEError("JVI-1 leaves out one sample at a time and needs k of at least 2")
    # Close to the bound, the two large terms cancel: shifted to it they are small.
    bound = iwae(log_weights)
    center = jax.lax.stop_gradient(jnp.where(jnp.isfinite(bound), bound, 0.0))
    others = leave_one_out(log_weights - center) - math.log(count - 1)
    corrected = center + count * (bound - center) - (count - 1) * jnp.mean(others, axis=0)
    return jnp.where(jnp.isneginf(bound), bound, corrected)


def tvo(log_weights: Float[Array, "k *batch"], partitions: int, first_beta: Parameter) -> Float[Array, "*batch"]:
    """The thermodynamic variational objective: the left Riemann sum of log p(x) = int_0^1 E_beta[log w] d beta.

    E_beta is the expectation under q^(1 - beta) p^beta, normalized, and is estimated by the samples with weights
    w^beta. The sum is over `partitions` intervals, which begin at 0 and at points from `first_beta` in (0, 1) towards 1
    that are equally apart in log beta. With one it is the ELBO; from infinitely many samples it is a lower bound on
    log p(x), tighter the more intervals there are. From k samples it is never above the largest log weight.

    Masrani, Le & Wood (2019), "The thermodynamic variational objective".

    Raises IWAEError for less than one interval, and a first beta outside of (0, 1).
    """
    check_count("partitions", partitions)
    if _is_known(first_beta) and not 0.0 < float(first_beta) < 1.0:
        raise IWAEError(f"TVO's first beta must lie between 0 and 1, got {float(first_beta)!r}")
    return _left_sum(log_weights, tvo_betas(partitions, first_beta).reshape(-1, *[1] * (log_weights.ndim - 1)))


def tvo_betas(partitions: int, first_beta: Parameter) -> Float[Array, " partitions"]:
    """Where the intervals of `tvo` begin: 0, then from `first_beta` equally apart in log beta."""
    exponents = jnp.arange(partitions - 1, dtype=float) / max(partitions - 1, 1)
    powers = jax.lax.stop_gradient(jnp.asarray(first_beta, float)) ** (1.0 - exponents)
    return jnp.concatenate([jnp.zeros(1), powers])


def tvo_moments(log_weights: Float[Array, "k *batch"], partitions: int) -> Float[Array, "*batch"]:
    """`tvo` over intervals that are chosen, for each example, so that E_beta[log w] grows by the same from one to the
    next: many where it grows quickly. They are held fixed in derivatives.

    Brekelmans, Masrani, Wood, Ver Steeg & Galstyan (2020), "All in the exponential family: Bregman duality in
    thermodynamic variational inference": their schedule by moments.

    Raises IWAEError for less than one interval.
    """
    check_count("partitions", partitions)
    fixed = jax.lax.stop_gradient(log_weights - _finite_peak(log_weights))
    shares = (jnp.arange(partitions) / partitions).reshape(-1, *[1] * (fixed.ndim - 1)).astype(fixed.dtype)
    low_mean, high_mean = _mean_at(fixed, jnp.zeros_like(shares)), _mean_at(fixed, jnp.ones_like(shares))
    wanted = (1.0 - shares) * low_mean + shares * high_mean

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        is_below = _mean_at(fixed, middle) < wanted
        return jnp.where(is_below, middle, low), jnp.where(is_below, high, middle)

    start = jnp.zeros_like(wanted), jnp.ones_like(wanted)
    low, _ = jax.lax.fori_loop(0, BISECTIONS, halve, start)
    return _left_sum(log_weights, jnp.where(shares == 0.0, 0.0, low))


# Of the interval [0, 1]: as many as float32 has digits.
BISECTIONS = 24


def _left_sum(
    log_weights: Float[Array, "k *batch"], betas: Float[Array, "partitions *#batch"]
) -> Float[Array, "*batch"]:
    """sum_j (beta_{j+1} - beta_j) E_{beta_j}[log w], from rising betas, the first of them 0."""
    ends = jnp.concatenate([betas[1:], jnp.ones_like(betas[:1])])
    peak = jax.lax.stop_gradient(_finite_peak(log_weights))
    sums = jnp.sum((ends - betas) * _mean_at(log_weights - peak, betas), axis=0) + peak
    # At beta = 0 every sample counts.
    return jnp.where(jnp.any(jnp.isneginf(log_weights), axis=0), -jnp.inf, sums)


def _mean_at(
    log_weights: Float[Array, "k *batch"], betas: Float[Array, "partitions *#batch"]
) -> Float[Array, "partitions *batch"]:
    """The mean of log weights under weights w^beta, for every beta; of what is not -inf."""
    finite = jnp.where(jnp.isneginf(log_weights), 0.0, log_weights)
    shares = jax.nn.softmax(betas[:, None] * finite, axis=1)
    return jnp.sum(shares * finite, axis=1)


def cubo(log_weights: Float[Array, "k *batch"]) -> Float[Array, "*batch"]:
    """CUBO_2, the chi-square evidence upper bound: 1/2 log (1/k) sum_i w_i^2. Equal to VR-alpha at alpha = -1.

    Dieng et al. (2017), "Variational inference via chi upper bound minimization". Its expectation under infinitely
    many samples is above log p(x); from k samples it is an underestimate of that, though never below L_k.
    """
    return renyi(log_weights, -1.0)


def leave_one_out(log_weights: Float[Array, "k *batch"]) -> Float[Array, "k *batch"]:
    """log sum_{j != i} w_j for every i, in O(k); -inf where all the others are.

    log(S - w_i) is exact unless w_i dominates, so the largest weight's own entry is summed without it.
    """
    # Shifted by the largest: beside a large number, the log of a sum has no digits left.
    shift = _finite_peak(log_weights)
    shifted = log_weights - shift
    is_peak = jnp.arange(len(shifted)).reshape(-1, *[1] * (shifted.ndim - 1)) == jnp.argmax(shifted, axis=0)
    without_peak = jax.nn.logsumexp(jnp.where(is_peak, -jnp.inf, shifted), axis=0)
    total = jax.nn.logsumexp(shifted, axis=0)
    share = jnp.exp(shifted - jnp.where(jnp.isneginf(total), 0.0, total))
    rest = total + jnp.log1p(-jnp.where(is_peak, 0.0, share))
    return shift + jnp.where(is_peak, without_peak, rest)


# The largest weights, whose pairs are left out one by one; the product of two others' odds is below 1 / 64.
LARGEST = 8
TERMS = 6


def jvi2(log_weights: Float[Array, "k *batch"]) -> Float[Array, "*batch"]:
    """JVI-2, the jackknife's second correction of L_k: k^2/2 L_k - (k - 1)^2 M_1 + (k - 2)^2/2 M_2, where M_1 is the
    mean of L_{k-1} over every sample left out, and M_2 that of L_{k-2} over every pair of them.

    Nowozin (2018), "Debiasing evidence approximations". Its bias is O(1/k^3), its variance above that of JVI-1, and it
    is NOT a bound. In O(k log k). -inf where every weight is zero or just two are not; +inf where just one is not.

    Raises IWAEError for fewer than three samples.
    """
    count = log_weights.shape[0]
    if count < 3:
        raise IWAEError("JVI-2 leaves out two samples at a time and needs k of at least 3")
    bound = iwae(log_weights)
    # With shares v_i of the sum, log(1 - v_i - v_j) = log(1 - v_i) + log(1 - v_j) + s_ij. The terms of order k^2 cancel
    # in the means of both parts, and what is left is of order 1.
    shares = log_weights - jax.lax.stop_gradient(jnp.where(jnp.isfinite(bound), bound, 0.0))
    shares = jnp.sort(shares - jax.nn.logsumexp(shares, axis=0), axis=0, descending=True)
    rest = leave_one_out(shares)
    constant = 0.5 * (count - 2) ** 2 * -math.log1p(-2 / count) + (count - 1) ** 2 * math.log1p(-1 / count)
    pairs = _pair_terms(shares, rest) * ((count - 2) ** 2 / (count * (count - 1)))
    corrected = bound - (2 * count - 3) * jnp.mean(rest, axis=0) + pairs + constant
    kinds = jnp.sum(jnp.isfinite(log_weights), axis=0)
    corrected = jnp.where(kinds == 1, jnp.inf, jnp.where(kinds == 2, -jnp.inf, corrected))
    return jnp.where(jnp.isneginf(bound), bound, corrected)


def _pair_terms(shares: Float[Array, "k *batch"], rest: Float[Array, "k *batch"]) -> Float[Array, "*batch"]:
    """The sum of s_ij over pairs, from log v_i in falling order and log(1 - v_i)."""
    largest = min(LARGEST, len(shares))
    first, second = np.triu_indices(largest, 1)
    kept = np.stack([np.delete(np.arange(largest), pair) for pair in zip(first, second, strict=True)])
    top, others = shares[:largest], shares[largest:]
    remaining = jax.nn.logsumexp(top[kept], axis=1)
    if not len(others):
        return jnp.sum(remaining - rest[first] - rest[second], axis=0)
    remaining = jnp.logaddexp(remaining, jax.nn.logsumexp(others, axis=0))
    total = jnp.sum(remaining - rest[first] - rest[second], axis=0)
    with_top = jnp.log1p(-jnp.exp(others - rest[:largest, None])) - jnp.log1p(-jnp.exp(others))
    # sum over pairs of log(1 - u_i u_j) by its series, whose terms are sums of powers of the odds u.
    odds = jnp.exp(others - rest[largest:])
    for n in range(1, TERMS + 1):
        total = total - (jnp.sum(odds**n, axis=0) ** 2 - jnp.sum(odds ** (2 * n), axis=0)) / (2 * n)
    return total + jnp.sum(with_top, axis=(0, 1))
