"""L_k for many k from the same draws, and what the draws say of the distance to log p(x)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike

from iwae import bounds
from iwae.arithmetic import standard_arithmetic
from iwae.data.dataset import Dataset, Split
from iwae.errors import IWAEError
from iwae.evaluation.batches import NoiseLayout, example_noise
from iwae.evaluation.examples import Batch, example_batches, log_mean, prepared
from iwae.evaluation.likelihood import MAX_SAMPLES
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

SAMPLES_AT_ONCE = 32


@dataclass(frozen=True)
class Rung:
    """What the first k draws of each example say, float64 arrays `[n]`.

    `log_likelihood` is L_k in nats, a lower bound of log p(x) in expectation; `effective_sample_size` is
    (sum w)^2 / sum w^2, from 1 to k; `jvi2` is the second-order jackknife's estimate of log p(x) (`iwae.bounds.jvi2`),
    no bound, and NaN for k below 3.
    """

    k: int
    log_likelihood: np.ndarray
    effective_sample_size: np.ndarray
    jvi2: np.ndarray

    @property
    def delta(self) -> np.ndarray:
        """(1/ESS - 1/k) / 2 in nats: how far L_k lies below log p(x) to first order in 1/k, by the delta method
        (Nowozin 2018).

        A warning where it is large, no proof where it is small: it is never above half a nat, and heavy tails, whose
        large weights are not among the draws, make it look better than it is.
        """
        return 0.5 * (1.0 / self.effective_sample_size - 1.0 / self.k)


@standard_arithmetic()
def ladder(
    model: HierarchicalVAE,
    data: Dataset | ArrayLike,
    ks: Sequence[int],
    split: Split = "test",
    *,
    seed: int = 0,
    indices: Sequence[int] | np.ndarray | None = None,
) -> list[Rung]:
    """The rungs of `ks`, in rising order, from one pass over the draws of the largest: those of `iwae.likelihoods`.

    `data` and `split` are as for `iwae.likelihoods`, and `indices` the rows that are measured, by default all. Memory
    grows with the largest k, for 64 examples at once.

    Raises IWAEError for no k or one outside 1 to 100,000, and rows that the model can't score.
    """
    rungs = check_ks(ks)
    found: list[list[tuple[np.ndarray, ...]]] = [[] for _ in rungs]
    model, rows, numbers = prepared(model, data, split, indices)
    for batch in example_batches(rows, numbers):
        log_weights = importance_log_weights(model, batch, rungs[-1], seed)
        for values, k in zip(found, rungs, strict=True):
            values.append(_of_first(log_weights[:k]))
    return [
        Rung(k, *(np.concatenate(arrays) for arrays in zip(*values, strict=True)))
        for k, values in zip(rungs, found, strict=True)
    ]


def check_ks(ks: Sequence[int]) -> list[int]:
    """Numbers of samples in rising order, each once. Raises IWAEError for none, or one outside 1 to 100,000."""
    if not ks or any(not isinstance(k, int) or not 1 <= k <= MAX_SAMPLES for k in ks):
        raise IWAEError(f"`ks` must be one or more numbers of samples from 1 to {MAX_SAMPLES:,}, got {list(ks)!r:.100}")
    return sorted(set(ks))


def _of_first(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values = log_weights.astype(np.float64)
    weights = np.exp(values - np.max(values, axis=0))
    effective = np.sum(weights, axis=0) ** 2 / np.sum(weights**2, axis=0)
    if len(values) < 3:
        return log_mean(values), effective, np.full(values.shape[1], math.nan)
    return log_mean(values), effective, np.asarray(jax.jit(bounds.jvi2)(log_weights), np.float64)


def log_likelihood_of_prepared(
    model: HierarchicalVAE, rows: np.ndarray, indices: np.ndarray, *, num_samples: int, seed: int = 0
) -> Float[np.ndarray, " n"]:
    """L_k of prepared rows in nats, with the draws of `indices`. A row's figure does not depend on the others."""
    batches = example_batches(rows, indices)
    return np.concatenate([log_mean(importance_log_weights(model, batch, num_samples, seed)) for batch in batches])


def importance_log_weights(
    model: HierarchicalVAE, batch: Batch, num_samples: int, seed: int
) -> Float[np.ndarray, "k real"]:
    """log w of the first samples of a batch's real examples, float32; the draws of `iwae.likelihoods`."""
    key = purpose_key(seed, Purpose.LIKELIHOOD)
    layout = NoiseLayout.of(model)
    blocks = math.ceil(num_samples / SAMPLES_AT_ONCE)
    found = _log_weights(model, batch.x, batch.indices, key, jnp.arange(blocks * SAMPLES_AT_ONCE), layout)
    return np.asarray(found)[:num_samples, : batch.real]


@eqx.filter_jit
def _log_weights(
    model: HierarchicalVAE,
    x: Float[Array, "examples visible"],
    indices: Int[Array, " examples"],
    key: Key[Array, ""],
    samples: Int[Array, " k"],
    layout: NoiseLayout,
) -> Float[Array, "k examples"]:
    def block(numbers: Array) -> Array:
        return model.log_weights_at(x, example_noise(layout, key, indices, numbers))

    return jax.lax.map(block, samples.reshape(-1, SAMPLES_AT_ONCE)).reshape(len(samples), len(x))
