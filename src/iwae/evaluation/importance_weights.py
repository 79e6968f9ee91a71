"""How the importance weights of single examples are distributed."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from iwae.arithmetic import standard_arithmetic
from iwae.data import Dataset, Split
from iwae.errors import IWAEError, needs_extra
from iwae.evaluation.batches import NoiseLayout, example_noise, on_data, prepared_batches
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

SAMPLES_AT_ONCE = 50
EXAMPLES_AT_ONCE = 40
FEWEST_PARETO_SAMPLES = 100


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
    key = purpose_key(seed, Purpose.LIKELIHOOD)
    layout = NoiseLayout.of(model, kept)
    size = min(SAMPLES_AT_ONCE, num_samples)
    rows = []
    for x, indices, count, _ in prepared_batches(model, data, split, EXAMPLES_AT_ONCE, num_examples):
        starts = range(0, num_samples, size)
        blocks = [_log_weights(model, x, indices, key, start + jnp.arange(size), layout) for start in starts]
        rows.append(np.concatenate(blocks)[:num_samples, :count].T)
    return np.concatenate(rows)


@eqx.filter_jit
def _log_weights(
    model: HierarchicalVAE, x: Array, indices: Array, key: Key[Array, ""], samples: Array, layout: NoiseLayout
) -> Float[Array, "k batch"]:
    return model.log_weights_at(x, example_noise(layout, key, indices, samples))


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


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """Pareto k-hat of each example's weights, `[examples, k]` log weights in, `[examples]` out.

    The shape of a generalized Pareto distribution fitted to the largest weights (Vehtari et al. 2024, "Pareto
    smoothed importance sampling"), by ArviZ: below 0.5 the estimate has finite variance, above `pareto_limit` it
    can't be relied on. As there, zero weights are never fitted to: with 4 positive ones or fewer the shape is inf. NaN
    where it is not defined: a log weight is NaN or inf, none is positive, or too many of the largest are equal.

    Raises IWAEError for fewer than 100 samples, and where arviz-stats, of the extra `report`, is not installed.
    """
    if log_weights.shape[1] < FEWEST_PARETO_SAMPLES:
        raise IWAEError(f"Pareto k-hat needs at least {FEWEST_PARETO_SAMPLES} samples, got {log_weights.shape[1]}")
    needs_extra("arviz_stats", "report")
    from arviz_stats.base.array import array_stats

    shapes = np.full(len(log_weights), np.nan)
    for number, row in enumerate(np.asarray(log_weights, np.float64)):
        if np.isfinite(row.max()):
            weights = np.sort(np.exp(row - row.max()))
            if np.sum(weights > np.finfo(float).tiny) <= 4:
                shapes[number] = np.inf
            elif _has_tail(weights):
                shapes[number] = array_stats.psislw(-row)[1]
    return shapes


def _has_tail(weights: np.ndarray) -> bool:
    """Whether a Pareto distribution can be fitted to the largest weights, of all in ascending order: its fit divides
    by the first quartile of what they have above the next smaller one.
    """
    size = int(min(len(weights) / 5, 3 * math.sqrt(len(weights))))
    below, tail = weights[-size - 1], weights[-size:]
    return bool(tail[int(size / 4 + 0.5) - 1] > below and tail[-1] > tail[0])


def pareto_limit(num_samples: int) -> float:
    """The Pareto k-hat above which an estimate from so many samples can't be relied on: min(1 - 1/log10 S, 0.7)
    (Vehtari et al. 2024).
    """
    return min(1.0 - 1.0 / math.log10(num_samples), 0.7)
