"""How the importance weights of single examples are distributed."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from iwae.arithmetic import standard_arithmetic
from iwae.data import Dataset, Split
from iwae.errors import IWAEError
from iwae.evaluation.batches import NoiseLayout, on_data
from iwae.evaluation.examples import example_batches, prepare_examples
from iwae.evaluation.log_weights import importance_log_weights
from iwae.models.vae import HierarchicalVAE

FEWEST_PARETO_SAMPLES = 100
FEWEST_FITTED = 4
HIGH_PARETO_K = 0.7
# Weights whose pairs JVI-2 leaves out one by one; the others' pairs are a series of so many terms.
SEPARATE = 8
TERMS = 6
LEAST_KEPT = 33


@standard_arithmetic()
def example_log_weights(
    model: HierarchicalVAE,
    dataset: Dataset,
    split: Split = "test",
    *,
    num_samples: int = 5000,
    num_examples: int = 100,
    seed: int = 0,
    kept: tuple[np.ndarray, ...] | None = None,
) -> np.ndarray:
    """log w of every sample of a split's first examples, in nats: float32 `[examples, k]`.

    The binarization and the draws are those of `iwae.likelihoods` with the same `seed` and `kept`: the log of the mean
    weight of a row is that example's L_k there.

    Raises IWAEError for an empty split, a dataset of another dimension, or a count below one.
    """
    if num_samples < 1 or num_examples < 1:
        raise IWAEError(f"log weights need at least 1 sample and example, got {num_samples} and {num_examples}")
    model, data = on_data(model, dataset, split)
    numbers = np.arange(min(num_examples, len(data)))
    x, layout = prepare_examples(model.likelihood, data[numbers], numbers, split), NoiseLayout.of(model, kept)
    batches = example_batches(x, numbers)
    return np.concatenate([importance_log_weights(model, batch, num_samples, seed, layout).T for batch in batches])


def relative_log_weights(log_weights: np.ndarray) -> np.ndarray:
    """log w minus the log of the example's mean weight, `[examples, k]`, in nats: 0 is a weight of average size.

    Rows without any finite log weight are left out.
    """
    values = np.asarray(log_weights, np.float64)
    values = values[np.isfinite(values.max(axis=1))]
    peak = values.max(axis=1, keepdims=True)
    return values - peak - np.log(np.mean(np.exp(values - peak), axis=1, keepdims=True))


def weight_above_mean(relative: np.ndarray) -> float:
    """The share of the weight, mean over examples, that lies on samples of more than their example's mean weight.

    `relative` is what `relative_log_weights` gives, `[examples, k]`; NaN for no examples.
    """
    if not relative.size:
        return float("nan")
    return float(np.mean(np.where(relative > 0, np.exp(relative), 0.0)))


def mean_effective_sample_size(log_weights: np.ndarray) -> float:
    """Mean over examples of (sum w)^2 / sum w^2, from log weights `[examples, k]`: from 1 to k, or 0 for an example
    all of whose weights are zero.
    """
    values = np.asarray(log_weights, np.float64)
    peak = values.max(axis=1, keepdims=True)
    weights = np.exp(values - np.where(np.isneginf(peak), 0.0, peak))
    squares = (weights**2).sum(axis=1)
    return float(np.mean(weights.sum(axis=1) ** 2 / np.where(squares > 0, squares, 1.0)))


def pareto_k(log_weights: np.ndarray) -> Float[np.ndarray, " examples"]:
    """Pareto k-hat of each example's weights, `[examples, k]` log weights in, `[examples]` out.

    The shape of a generalized Pareto distribution fitted to the largest weights (Vehtari et al. 2024, "Pareto smoothed
    importance sampling"; the fit is that of Zhang & Stephens 2009): below 0.5 the estimate has finite variance, above
    `pareto_limit` it can't be relied on. Zero weights are never fitted to: with 4 positive ones or fewer the shape is
    inf. NaN where it is not defined: a log weight is NaN or inf, none is positive, or too many of the largest are
    equal.

    Raises IWAEError for fewer than 100 samples.
    """
    if log_weights.shape[1] < FEWEST_PARETO_SAMPLES:
        raise IWAEError(f"Pareto k-hat needs at least {FEWEST_PARETO_SAMPLES} samples, got {log_weights.shape[1]}")
    return Tail.of(log_weights).pareto_k


def pareto_limit(num_samples: int) -> float:
    """The Pareto k-hat above which an estimate from so many samples can't be relied on: min(1 - 1/log10 S, 0.7)
    (Vehtari et al. 2024).
    """
    return min(1.0 - 1.0 / math.log10(num_samples), HIGH_PARETO_K)


def shape_figures(shapes: np.ndarray, limit: float = HIGH_PARETO_K) -> tuple[float, float]:
    """The median of examples' Pareto k-hat, and the share of them above `limit`; NaN where none is defined."""
    defined = shapes[~np.isnan(shapes)]
    return (float(np.median(defined)), float(np.mean(defined > limit))) if defined.size else (math.nan, math.nan)


@dataclass(frozen=True)
class Tail:
    """What JVI-2 and Pareto k-hat need of `count` importance weights of each example.

    `largest` `[examples, kept]` are the largest log weights in falling order, float64; those that there are not are
    -inf. `powers` `[6, examples]` are the sums of the other weights' first to sixth powers, in units of the least of
    `largest`. Memory grows with the root of `count`: k-hat needs the 3 sqrt(k) largest weights.
    """

    largest: np.ndarray
    powers: np.ndarray
    count: int

    @classmethod
    def empty(cls, examples: int, num_samples: int) -> "Tail":
        """That of no weights yet, with room for `num_samples`."""
        kept = max(LEAST_KEPT, _tail_size(num_samples) + 1)
        return cls(np.full((examples, kept), -np.inf), np.zeros((TERMS, examples)), 0)

    @classmethod
    def of(cls, log_weights: np.ndarray) -> "Tail":
        """That of log weights `[examples, k]`."""
        return cls.empty(*log_weights.shape).adding(log_weights)

    def adding(self, log_weights: np.ndarray) -> "Tail":
        """With more log weights, `[examples, more]`."""
        kept = self.largest.shape[1]
        values = np.concatenate([self.largest, np.asarray(log_weights, np.float64)], axis=1)
        values = np.partition(values, -kept, axis=1)
        largest = np.sort(values[:, -kept:], axis=1)[:, ::-1]
        least = np.where(np.isfinite(largest[:, -1]), largest[:, -1], 0.0)
        with np.errstate(invalid="ignore"):
            others, scale = np.exp(values[:, :-kept] - least[:, None]), np.exp(self.largest[:, -1] - least)
        powers, power = np.empty_like(self.powers), np.ones_like(others)
        for n in range(TERMS):
            power = power * others
            powers[n] = self.powers[n] * scale ** (n + 1) + power.sum(axis=1)
        return Tail(largest, powers, self.count + log_weights.shape[1])

    @property
    def pareto_k(self) -> Float[np.ndarray, " examples"]:
        """As the function `pareto_k`; NaN for fewer than 100 weights."""
        shapes = np.full(len(self.largest), np.nan)
        size, finite = _tail_size(self.count), np.isfinite(self.largest[:, 0])
        if self.count < FEWEST_PARETO_SAMPLES or not finite.any():
            return shapes
        weights = np.exp(self.largest[finite, size::-1] - self.largest[finite, :1])
        tail = weights[:, 1:] - weights[:, :1]
        # The fit divides by the tail's first quartile.
        fits = (tail[:, int(size / 4 + 0.5) - 1] > 0) & (tail[:, -1] > tail[:, 0])
        found = np.full(len(tail), np.nan)
        found[fits] = _tail_shape(tail[fits])
        found[np.sum(weights > np.finfo(float).tiny, axis=1) <= FEWEST_FITTED] = np.inf
        shapes[finite] = found
        return shapes

    @property
    def jvi2(self) -> Float[np.ndarray, " examples"]:
        """`iwae.bounds.jvi2` of the weights, in float64; NaN for fewer than three.

        Every function of a weight outside the largest is a series in its share of the sum, which is below 1 / 32.
        """
        k = self.count
        if k < 3:
            return np.full(len(self.largest), np.nan)
        orders = np.arange(1, TERMS + 1)[:, None]
        with np.errstate(all="ignore"):
            peak = self.largest[:, 0]
            weights = np.exp(self.largest - np.where(np.isneginf(peak), 0.0, peak)[:, None])
            least, small = weights[:, -1], weights[:, -1] * self.powers[0]
            total = weights.sum(axis=1) + small
            shares = weights / total[:, None]
            others = self.powers * (least / total) ** orders
            # Without the largest, summed anew: beside it the others may have no digits left.
            rest = np.log1p(-shares)
            rest[:, 0] = np.log((weights[:, 1:].sum(axis=1) + small) / total)
            # log(1 - v_i - v_j) = log(1 - v_i) + log(1 - v_j) + s_ij for shares v: the sum of s_ij over pairs.
            pairs = np.zeros_like(total)
            for i, j in combinations(range(SEPARATE), 2):
                left = np.delete(weights, (i, j), axis=1).sum(axis=1) + small
                pairs += np.log(left / total) - rest[:, i] - rest[:, j]
            middle, middle_rest = shares[:, SEPARATE:], rest[:, SEPARATE:]
            for i in range(SEPARATE):
                without = np.exp(rest[:, i])
                pairs += np.sum(np.log1p(-middle / without[:, None]) - middle_rest, axis=1)
                ratios = self.powers * (least / (total * without)) ** orders
                pairs -= np.sum((ratios - others) / orders, axis=0)
            odds = middle / np.exp(middle_rest)
            sums = [np.sum(odds**n, axis=1) + _odds_of_others(others, n) for n in range(1, 2 * TERMS + 1)]
            for n in range(1, TERMS + 1):
                pairs -= (sums[n - 1] ** 2 - sums[2 * n - 1]) / (2 * n)
            # In k^2/2 L_k - (k - 1)^2 M_1 + (k - 2)^2/2 M_2 the terms of order k^2 cancel, and are left out.
            constant = 0.5 * (k - 2) ** 2 * -math.log1p(-2 / k) + (k - 1) ** 2 * math.log1p(-1 / k)
            rests = rest.sum(axis=1) - np.sum(others / orders, axis=0)
            found = peak + np.log(total / k) - (2 * k - 3) / k * rests + constant
            found += pairs * ((k - 2) ** 2 / (k * (k - 1)))
        kinds = np.sum(np.isfinite(self.largest), axis=1)
        return np.where(kinds == 1, np.inf, np.where((kinds == 2) | np.isneginf(peak), -np.inf, found))


def _odds_of_others(powers: np.ndarray, n: int) -> np.ndarray:
    """The sum of (v / (1 - v))^n from sums of powers of v, `[6, examples]`."""
    return sum((math.comb(m - 1, m - n) * powers[m - 1] for m in range(n, TERMS + 1)), np.zeros(powers.shape[1]))


def _tail_size(num_samples: int) -> int:
    return int(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def _tail_shape(tail: np.ndarray) -> np.ndarray:
    """The shape of generalized Pareto distributions from excesses in rising order, `[n, size]`: the mean of the
    posterior over a grid, drawn to 0.5 as if by ten excesses more.
    """
    size = tail.shape[1]
    grid = 30 + math.isqrt(size)
    b = 1.0 - np.sqrt(grid / (np.arange(grid) + 0.5))
    b = b / (3.0 * tail[:, [int(size / 4 + 0.5) - 1]]) + 1.0 / tail[:, -1:]
    shape = np.mean(np.log1p(-b[:, :, None] * tail[:, None]), axis=2)
    log_posterior = size * (np.log(-b / shape) - shape - 1.0)
    posterior = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
    b = np.sum(b * posterior, axis=1) / np.sum(posterior, axis=1)
    return (np.sum(np.log1p(-b[:, None] * tail), axis=1) + 10 * 0.5) / (size + 10)
