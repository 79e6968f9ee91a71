"""Measuring a model: importance-sampled likelihoods and active units."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from iwae.data.dataset import Dataset, Split
from iwae.errors import IWAEError
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

MAX_SAMPLES = 100_000
ACTIVE_THRESHOLD = 0.01
PAPER_ACTIVE_EXAMPLES = 500
# The draw that turns grey values into the binary images which are measured is the same for every model.
BINARIZATION_SEED = 0
SPLIT_NUMBERS: dict[Split, int] = {"train": 0, "valid": 1, "test": 2}
# Rows of one block of work (examples times samples): large enough for the matrix products, small enough that
# the widest layer's activations stay in the processor's cache.
BLOCK_ROWS = 2000
ENCODE_ROWS = 2000

OnExamples = Callable[[int, int], None]


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


def likelihoods(
    model: HierarchicalVAE,
    dataset: Dataset,
    split: Split = "test",
    *,
    num_samples: int = 5000,
    seed: int = 0,
    max_examples: int | None = None,
    block_rows: int = BLOCK_ROWS,
    kept: tuple[np.ndarray, ...] | None = None,
    on_examples: OnExamples | None = None,
) -> Likelihoods:
    """L_k of every example of a split (the first `max_examples` of it), by importance sampling from q.

    log (1/k) sum_i p(x, h_i) / q(h_i | x), a lower bound on log p(x) in expectation that is within a fraction
    of a nat of it at the paper's k = 5000 (Burda et al. 2015, section 5). Grey values are binarized once, with a
    fixed seed. An example's draws depend on `seed`, its index and the sample's number alone, so that the result
    does not depend on `block_rows` (beyond rounding) and L_k of a smaller k uses the first draws of a larger.
    Memory grows with neither k nor the number of examples. `on_examples(done, total)` is called after each block.
    For a model from which units were removed, `kept` (bool `[units]` per layer of the original) gives it the same
    noise as the original, so that the two can be compared example by example.

    Raises IWAEError for an empty split, a dataset of another dimension, or a number of samples outside 1 to
    100,000.
    """
    if not isinstance(num_samples, int) or not 1 <= num_samples <= MAX_SAMPLES:
        raise IWAEError(f"the number of samples must be from 1 to {MAX_SAMPLES:,}, got {num_samples!r}")
    samples_at_once = min(num_samples, 50)
    key = purpose_key(seed, Purpose.LIKELIHOOD)
    noise = NoiseLayout.of(model, kept)
    log_likelihood, effective = [], []
    for x, indices, count, total in binarized_batches(
        model, dataset, split, max(1, block_rows // samples_at_once), max_examples
    ):
        values = _importance_sample(model, x, indices, key, jnp.int32(num_samples), samples_at_once, noise)
        log_likelihood.append(np.asarray(values[0], np.float64)[:count])
        effective.append(np.asarray(values[1], np.float64)[:count])
        if on_examples is not None:
            on_examples(sum(map(len, log_likelihood)), total)
    return Likelihoods(np.concatenate(log_likelihood), np.concatenate(effective), num_samples)


def binarized_batches(
    model: HierarchicalVAE, dataset: Dataset, split: Split, size: int, max_examples: int | None
) -> Iterator[tuple[Array, Array, int, int]]:
    """Batches of a split as it is measured: binary rows `[size, visible]`, always of one shape, with the examples'
    indices, how many of the rows are real, and the total number of examples.

    Raises IWAEError for an empty split or a model of another dimension.
    """
    values = dataset.split(split)
    total = len(values) if max_examples is None else min(len(values), max_examples)
    if total < 1:
        raise IWAEError(f"nothing to measure: the {split} split of {dataset.name} has no examples")
    if dataset.dim != model.visible:
        raise IWAEError(f"{dataset.name} has {dataset.dim} dimensions, but the model was built for {model.visible}")
    size = min(size, total)
    key = jax.random.fold_in(purpose_key(BINARIZATION_SEED, Purpose.BINARIZE), SPLIT_NUMBERS[split])
    for start in range(0, total, size):
        # The last batch is padded with earlier rows, so that one compiled program serves all.
        indices = np.minimum(np.arange(start, start + size), total - 1)
        rows = jnp.asarray(values[indices])
        yield (
            binarize_rows(rows, jnp.asarray(indices), key, dataset.scale, dataset.binary),
            jnp.asarray(indices),
            min(size, total - start),
            total,
        )


@eqx.filter_jit
def binarize_rows(
    rows: Array, indices: Int[Array, " batch"], key: Key[Array, ""], scale: float, binary: bool
) -> Float[Array, "batch visible"]:
    """Zeros and ones from the probabilities `rows * scale`, each row's draw a function of its index alone."""
    values = rows.astype(jnp.float32)
    if binary:
        return values
    uniforms = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), values.shape[1:]))(indices)
    return (uniforms < values * scale).astype(jnp.float32)


@dataclass(frozen=True)
class NoiseLayout:
    """Which of an example's `width` standard normals each stochastic layer takes, by their columns."""

    width: int
    columns: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: HierarchicalVAE, kept: tuple[np.ndarray, ...] | None = None) -> "NoiseLayout":
        """Consecutive columns, layer by layer; with `kept`, those of the units that are left."""
        if kept is None:
            kept = tuple(np.ones(units, bool) for units in model.latent)
        starts = np.cumsum([0, *map(len, kept)])
        columns = tuple(
            tuple(int(start + unit) for unit in np.flatnonzero(mask))
            for start, mask in zip(starts[:-1], kept, strict=True)
        )
        return cls(int(starts[-1]), columns)


def example_noise(
    layout: NoiseLayout, key: Key[Array, ""], indices: Int[Array, " batch"], samples: Int[Array, " k"]
) -> tuple[Float[Array, "k batch _"], ...]:
    """Noise for `HierarchicalVAE.log_weights_at`, each draw a function of the example's index and the sample's
    number alone.
    """
    example_keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)

    def draw(sample: Int[Array, ""], example_key: Key[Array, ""]) -> Float[Array, " units"]:
        return jax.random.normal(jax.random.fold_in(example_key, sample), (layout.width,))

    noise = jax.vmap(lambda s: jax.vmap(lambda e: draw(s, e))(example_keys))(samples)
    return tuple(noise[..., jnp.asarray(columns)] for columns in layout.columns)


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


@dataclass(frozen=True)
class ActiveUnits:
    """Mean and variance over data of each unit's posterior mean, float64 arrays `[units]`, one per layer."""

    means: tuple[np.ndarray, ...]
    variances: tuple[np.ndarray, ...]

    @property
    def active(self) -> tuple[np.ndarray, ...]:
        """bool `[units]` per layer: variance above 0.01 (Burda et al. 2015, section 5.2)."""
        return tuple(variance > ACTIVE_THRESHOLD for variance in self.variances)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of active units per layer."""
        return tuple(int(np.sum(active)) for active in self.active)


def active_units(
    model: HierarchicalVAE,
    dataset: Dataset,
    split: Split = "train",
    *,
    num_samples: int = 10,
    max_examples: int | None = None,
    seed: int = 0,
    on_examples: OnExamples | None = None,
) -> ActiveUnits:
    """A = Var_x(E_{q(u|x)}[u]) for every unit u (Burda et al. 2015, section 5.2).

    In layers above the first, E_{q(u|x)}[u] is averaged over `num_samples` samples of the layers below, and the
    variance that the averaging leaves, s^2 / num_samples, is subtracted; with a single sample nothing can be.

    `on_examples(done, total)` is called after each block.

    Raises IWAEError for an empty split, a dataset of another dimension, or no samples.
    """
    if num_samples < 1:
        raise IWAEError(f"the number of samples must be at least 1, got {num_samples}")
    key = purpose_key(seed, Purpose.ACTIVE_UNITS)
    means, spreads = [], []
    size = max(1, ENCODE_ROWS // num_samples)
    done = 0
    for x, indices, count, total in binarized_batches(model, dataset, split, size, max_examples):
        mean, spread = _posterior_means(model, x, indices, key, num_samples)
        means.append([np.asarray(layer, np.float64)[:count] for layer in mean])
        spreads.append([np.asarray(layer, np.float64)[:count] for layer in spread])
        done += count
        if on_examples is not None:
            on_examples(done, total)
    all_means = [np.concatenate(layer) for layer in zip(*means, strict=True)]
    all_spreads = [np.concatenate(layer) for layer in zip(*spreads, strict=True)]
    return ActiveUnits(
        tuple(np.mean(mean, axis=0) for mean in all_means),
        tuple(
            np.var(mean, axis=0) - np.mean(spread, axis=0) / num_samples
            for mean, spread in zip(all_means, all_spreads, strict=True)
        ),
    )


def paper_active_units(model: HierarchicalVAE, dataset: Dataset) -> ActiveUnits:
    """The count as the paper's code made it: the first 500 training images, one sample of the layers below."""
    return active_units(model, dataset, num_samples=1, max_examples=PAPER_ACTIVE_EXAMPLES)


@eqx.filter_jit
def _posterior_means(
    model: HierarchicalVAE,
    x: Float[Array, "batch visible"],
    indices: Int[Array, " batch"],
    key: Key[Array, ""],
    num_samples: int,
) -> tuple[list[Float[Array, "batch _"]], list[Float[Array, "batch _"]]]:
    """Mean over samples of each layer's posterior mean, and its variance over them (zero for one sample)."""
    noise = example_noise(NoiseLayout.of(model), key, indices, jnp.arange(num_samples))
    posteriors, _ = model.sample_posterior(x, noise)
    means, spreads = [posteriors[0].mean], [jnp.zeros_like(posteriors[0].mean)]
    for posterior in posteriors[1:]:
        means.append(jnp.mean(posterior.mean, axis=0))
        spread = jnp.var(posterior.mean, axis=0, ddof=1) if num_samples > 1 else jnp.zeros_like(means[-1])
        spreads.append(spread)
    return means, spreads
