"""Unbiased estimates of log p(x): series of bounds, cut off at random. To measure with, not to train."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike

from iwae.arithmetic import standard_arithmetic
from iwae.data.dataset import Dataset, Split
from iwae.errors import check_count
from iwae.evaluation.batches import NoiseLayout, OnExamples, noise_of_keys, pair_keys
from iwae.evaluation.examples import EXAMPLES_AT_ONCE, prepared
from iwae.evaluation.likelihood import check_samples, standard_error
from iwae.evaluation.log_weights import SAMPLES_AT_ONCE
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

# SUMO: P(K >= k) is 1/k up to here, and falls by a tenth from one k to the next beyond (Luo et al. 2020).
HARMONIC, DECAY = 80, 0.9
# RMLMC: level l has probability (1 - 2^-RATE) 2^(-RATE l). Above 1 the expected cost is finite; below 2 the variance
# is, where the square of level l's difference falls as 4^-l (Shi & Cornish 2021).
RATE = 1.5
# A draw with more of all squared deviations than this says that there may be no variance.
TOO_LARGE_SHARE = 0.1


@dataclass(frozen=True)
class UnbiasedLikelihoods:
    """Unbiased estimates of log p(x) in nats: `values` are float64 `[repeats, n]`, independent draws of each example's.

    `num_samples` is how many samples of q(h | x) they took, `[repeats, n]`.
    """

    values: np.ndarray
    num_samples: np.ndarray

    def __repr__(self) -> str:
        repeats, count = self.values.shape
        figures = f"NLL {self.nll:.2f} ± {self.nll_stderr:.2f} nats of {count:,} examples, {repeats} draws of each"
        return f"UnbiasedLikelihoods({figures}; {np.mean(self.num_samples):.1f} samples a draw)"

    @property
    def log_likelihood(self) -> np.ndarray:
        """Each example's mean over draws, `[n]`."""
        return np.mean(self.values, axis=0)

    @property
    def stderr(self) -> np.ndarray:
        """Its standard error over draws, `[n]`; NaN for a single draw. Too small where the variance is infinite."""
        repeats = len(self.values)
        if repeats == 1:
            return np.full(self.values.shape[1], np.nan)
        return np.std(self.values, axis=0, ddof=1) / math.sqrt(repeats)

    @property
    def nll(self) -> float:
        """Mean of -log p(x) as estimated, in nats."""
        return -float(np.mean(self.values))

    @property
    def nll_stderr(self) -> float:
        """Standard error of `nll` over draws and examples; NaN for a single example."""
        return standard_error(self.log_likelihood)

    @property
    def largest_share(self) -> float:
        """Of all squared deviations from the examples' means, the largest one's share: it tends to 0 with the number of
        draws if, and only if, there is a variance. 0 for a single draw.
        """
        squares = np.square(self.values - self.log_likelihood)
        total = np.sum(squares)
        return float(np.max(squares) / total) if total > 0 else 0.0


@standard_arithmetic()
def sumo(
    model: HierarchicalVAE,
    data: Dataset | ArrayLike,
    split: Split = "test",
    *,
    repeats: int = 100,
    least_samples: int = 1,
    seed: int = 0,
    indices: Sequence[int] | np.ndarray | None = None,
    on_examples: OnExamples | None = None,
) -> UnbiasedLikelihoods:
    """log p(x) by SUMO (Luo et al. 2020): L_m + sum_{k=1}^K (L_{m+k} - L_{m+k-1}) / P(K >= k), where the number of
    terms K is drawn, and m is `least_samples`. Its expectation is the limit of L_k, log p(x).

    P(K >= k) is 1/k up to 80 and falls geometrically beyond, as theirs: 5.1 terms on average. **Its tails are heavy:
    the variance may be infinite, and is large wherever L_k rises slowly.** Then the mean of the draws is dominated
    by the few with many terms, and its standard error is too small. More `least_samples` are the remedy, or L_k.

    `data`, `split`, `indices` are as for `iwae.ais`. A draw depends on `seed`, the example's index and the number of
    the draw alone: it is the same, to the bit, however many others are made. `on_examples` counts the draws of all
    examples. Warns where one draw has over a tenth of all squared deviations.

    Raises IWAEError for rows that the model can't score, and counts below 1.
    """
    check_samples("least_samples", least_samples)

    def count(uniform: np.ndarray) -> np.ndarray:
        beyond = HARMONIC + np.floor(np.log(uniform * HARMONIC) / math.log(DECAY))
        terms = np.where(uniform > 1.0 / HARMONIC, np.floor(1.0 / uniform), beyond)
        return least_samples + terms.astype(np.int64)

    def value(log_weights: np.ndarray) -> float:
        bounds = np.logaddexp.accumulate(log_weights) - np.log(np.arange(1, len(log_weights) + 1))
        rises = np.diff(bounds[least_samples - 1 :])
        k = np.arange(1, len(rises) + 1)
        chances = np.where(k <= HARMONIC, 1.0 / k, DECAY ** (k - HARMONIC) / HARMONIC)
        return bounds[least_samples - 1] + float(np.sum(rises / chances))

    return _estimates(model, data, split, indices, repeats, seed, count, value, on_examples)


@standard_arithmetic()
def rmlmc(
    model: HierarchicalVAE,
    data: Dataset | ArrayLike,
    split: Split = "test",
    *,
    repeats: int = 100,
    least_samples: int = 1,
    seed: int = 0,
    indices: Sequence[int] | np.ndarray | None = None,
    on_examples: OnExamples | None = None,
) -> UnbiasedLikelihoods:
    """log p(x) by randomized multilevel Monte Carlo, in its single-term form (Shi & Cornish 2021; Blanchet & Glynn
    2015): L_m + D_l / P(l), for a random level l, where D_l is L_{2n} of 2n = 2^(l+1) m samples less the mean of the
    L_n of their halves, P(l) is proportional to 2^(-1.5 l) and m is `least_samples`.

    Of the two halves the errors cancel to first order, so that its tails are lighter than those of `iwae.sumo`. **The
    variance may be infinite still**, where that of the weights is. It takes 4.4 m samples on average. All else is as
    for `iwae.sumo`.
    """
    check_samples("least_samples", least_samples)

    def count(uniform: np.ndarray) -> np.ndarray:
        return least_samples * 2 ** (1 + np.floor(-np.log2(uniform) / RATE).astype(np.int64))

    def value(log_weights: np.ndarray) -> float:
        groups = log_weights.reshape(-1, least_samples)
        level = len(groups).bit_length() - 2
        chance = (1.0 - 2.0**-RATE) * 2.0 ** (-RATE * level)
        halves = np.mean(_bound(log_weights.reshape(2, -1)))
        return float(np.mean(_bound(groups)) + (_bound(log_weights) - halves) / chance)

    return _estimates(model, data, split, indices, repeats, seed, count, value, on_examples)


def _bound(log_weights: np.ndarray) -> np.ndarray:
    """L_k over the last axis."""
    return np.logaddexp.reduce(log_weights, axis=-1) - math.log(log_weights.shape[-1])


def _estimates(
    model: HierarchicalVAE,
    data: Dataset | ArrayLike,
    split: Split,
    indices: Sequence[int] | np.ndarray | None,
    repeats: int,
    seed: int,
    count: Callable[[np.ndarray], np.ndarray],
    value: Callable[[np.ndarray], float],
    on_examples: OnExamples | None,
) -> UnbiasedLikelihoods:
    """Draws, of which each takes `count` of a number in (0, 1) samples, and makes `value` of their log weights."""
    check_count("repeats", repeats)
    model, rows, numbers = prepared(model, data, split, indices)
    layout, (noise_key, count_key) = NoiseLayout.of(model), jax.random.split(purpose_key(seed, Purpose.UNBIASED))
    # One draw of one example is a piece of work, wherever it stands among the others.
    row = np.tile(np.arange(len(rows)), repeats)
    which = np.stack([numbers[row], np.repeat(np.arange(repeats), len(rows))])
    needed, values = np.zeros(len(row), np.int64), np.zeros(len(row))
    for start in range(0, len(row), EXAMPLES_AT_ONCE):
        at = _batch(np.arange(len(row)), start)
        bits = jax.vmap(jax.random.bits)(pair_keys(count_key, *jnp.asarray(which[:, at])))
        needed[at] = count((np.asarray(bits, np.float64) + 0.5) / 2.0**32)
    # Those that take as many samples go together.
    order = np.argsort(needed, kind="stable")
    for start in range(0, len(order), EXAMPLES_AT_ONCE):
        at = _batch(order, start)
        keys, x = pair_keys(noise_key, *jnp.asarray(which[:, at])), jnp.asarray(rows[row[at]])
        blocks = [
            np.asarray(_log_weights(model, x, keys, jnp.arange(first, first + SAMPLES_AT_ONCE), layout), np.float64)
            for first in range(0, int(needed[at].max()), SAMPLES_AT_ONCE)
        ]
        log_weights = np.concatenate(blocks)
        for column, item in enumerate(at):
            values[item] = value(log_weights[: needed[item], column])
        if on_examples is not None:
            on_examples(min(start + EXAMPLES_AT_ONCE, len(order)), len(order))
    found = UnbiasedLikelihoods(values.reshape(repeats, -1), needed.reshape(repeats, -1))
    if (share := found.largest_share) > TOO_LARGE_SHARE and values.size > 10 / TOO_LARGE_SHARE:
        warnings.warn(
            f"one of {values.size:,} draws has {share:.0%} of all squared deviations: the variance may be infinite, and"
            " the standard errors are too small; raise `least_samples`",
            stacklevel=3,
        )
    return found


def _batch(items: np.ndarray, start: int) -> np.ndarray:
    """A batch of one shape, filled up with the last item."""
    return items[np.minimum(np.arange(start, start + EXAMPLES_AT_ONCE), len(items) - 1)]


@eqx.filter_jit
def _log_weights(
    model: HierarchicalVAE,
    x: Float[Array, "n visible"],
    keys: Key[Array, " n"],
    samples: Int[Array, " k"],
    layout: NoiseLayout,
) -> Float[Array, "k n"]:
    return model.with_prior_made().log_weights_at(x, noise_of_keys(layout, keys, samples))
