"""Importance-sampled likelihoods."""

import math
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike

from iwae.arithmetic import standard_arithmetic
from iwae.data.dataset import Dataset, Split
from iwae.errors import IWAEError, check_count
from iwae.evaluation.batches import NoiseLayout, OnExamples, example_noise, on_data, prepared_batches
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

MAX_SAMPLES = 100_000
# Rows of one block of work (examples times samples): large enough for the matrix products, small enough that
# the widest layer's activations stay in the processor's cache.
BLOCK_ROWS = 2000


@dataclass(frozen=True)
class Likelihoods:
    """Importance-sampled log likelihoods of some examples.

    `log_likelihood` is each example's L_k, in nats; `effective_sample_size` is (sum w)^2 / sum w^2, from 1 to k;
    both are float64 arrays `[examples]`.
    """

    log_likelihood: np.ndarray
    effective_sample_size: np.ndarray
    num_samples: int

    @property
    def nll(self) -> float:
        """Mean of -L_k over the examples, in nats."""
        return -float(np.mean(self.log_likelihood))

    @property
    def stderr(self) -> float:
        """Standard error of `nll` over examples; NaN for a single one."""
        count = len(self.log_likelihood)
        return float(np.std(self.log_likelihood, ddof=1)) / math.sqrt(count) if count > 1 else math.nan

    @property
    def mean_effective_sample_size(self) -> float:
        """Mean over examples."""
        return float(np.mean(self.effective_sample_size))


def log_likelihood(
    model: HierarchicalVAE, x: ArrayLike, num_samples: int = 5000, seed: int = 0
) -> Float[np.ndarray, " n"]:
    """L_k of every row of `x`, `[n, visible]` or `[n, height, width]`, as the data are stored: float64 `[n]`, in nats.

    See `likelihoods`, which gives the effective sample sizes too.
    """
    return likelihoods(model, x, num_samples=num_samples, seed=seed).log_likelihood


@standard_arithmetic()
def likelihoods(
    model: HierarchicalVAE,
    data: Dataset | ArrayLike,
    split: Split = "test",
    *,
    num_samples: int = 5000,
    seed: int = 0,
    max_examples: int | None = None,
    block_rows: int = BLOCK_ROWS,
    kept: tuple[np.ndarray, ...] | None = None,
    on_examples: OnExamples | None = None,
) -> Likelihoods:
    """L_k of a dataset's split, or of stored rows (the first `max_examples`), by importance sampling from q.

    log (1/k) sum_i p(x, h_i) / q(h_i | x), a lower bound on log p(x) in expectation (Burda et al. 2015, section 5).
    How far below it lies at the paper's k = 5000 depends on the encoder: about a nat for a VAE of the paper's networks
    on MNIST. Grey values are binarized once, with a fixed seed that depends on the `split` that the rows are of. An
    example's draws depend on `seed`, its index and the sample's number alone, so that the result does not depend on
    `block_rows` (beyond rounding) and L_k of a smaller k uses the first draws of a larger. Memory grows with neither k
    nor the number of examples. `on_examples(done, total)` is called after each block. For a model from which units were
    removed, `kept` (bool `[units]` per layer of the original) gives it the same noise as the original, so that the two
    can be compared example by example.

    Raises IWAEError for no rows, rows that the model can't score, and a number of samples outside 1 to 100,000.
    """
    check_count("num_samples", num_samples)
    if num_samples > MAX_SAMPLES:
        raise IWAEError(f"`num_samples` must be at most {MAX_SAMPLES:,}, got {num_samples}")
    model, rows = on_data(model, data, split)
    samples_at_once = min(int(num_samples), 50)
    key = purpose_key(seed, Purpose.LIKELIHOOD)
    noise = NoiseLayout.of(model, kept)
    log_likelihood, effective = [], []
    size = max(1, block_rows // samples_at_once)
    for x, indices, count, total in prepared_batches(model, rows, split, size, max_examples):
        values = _importance_sample(model, x, indices, key, jnp.int32(num_samples), samples_at_once, noise)
        log_likelihood.append(np.asarray(values[0], np.float64)[:count])
        effective.append(np.asarray(values[1], np.float64)[:count])
        if on_examples is not None:
            on_examples(sum(map(len, log_likelihood)), total)
    return Likelihoods(np.concatenate(log_likelihood), np.concatenate(effective), int(num_samples))


@eqx.filter_jit
def _importance_sample(
    model: HierarchicalVAE,
    x: Float[Array, "batch visible"],
    indices: Int[Array, " batch"],
    key: Key[Array, ""],
    num_samples: Int[Array, ""],
    samples_at_once: int,
    noise: NoiseLayout,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """L_k and the effective sample size, by a running log-sum-exp over blocks of samples."""

    def body(start: Int[Array, ""], carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        peak, total, squares = carry
        samples = start * samples_at_once + jnp.arange(samples_at_once)
        log_weights = model.log_weights_at(x, example_noise(noise, key, indices, samples))
        log_weights = jnp.where(samples[:, None] < num_samples, log_weights, -jnp.inf)
        new_peak = jnp.maximum(peak, jnp.max(log_weights, axis=0))
        # While every weight so far is zero, any finite shift gives the right sum: zero.
        shift = jnp.where(jnp.isneginf(new_peak), 0.0, new_peak)
        weights = jnp.exp(log_weights - shift)
        rescale = jnp.exp(peak - shift)
        return (
            new_peak,
            total * rescale + jnp.sum(weights, axis=0),
            squares * jnp.square(rescale) + jnp.sum(jnp.square(weights), axis=0),
        )

    batch = x.shape[0]
    blocks = (num_samples + samples_at_once - 1) // samples_at_once
    start = (jnp.full(batch, -jnp.inf), jnp.zeros(batch), jnp.zeros(batch))
    peak, total, squares = jax.lax.fori_loop(0, blocks, body, start)
    # An example all of whose weights are zero has L_k = -inf, and no sample counts for it.
    effective = jnp.where(total > 0, jnp.square(total) / squares, 0.0)
    return peak + jnp.log(total) - jnp.log(num_samples.astype(jnp.float32)), effective
