"""Importance-sampled likelihoods, at one number of samples or a ladder of them, and how far to trust them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike

from iwae.arithmetic import standard_arithmetic
from iwae.data.dataset import Dataset, Split
from iwae.devices import over_devices
from iwae.errors import IWAEError, check_count
from iwae.evaluation.batches import NoiseLayout, OnExamples, example_noise, on_data, prepared_batches
from iwae.evaluation.importance_weights import Tail
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

MAX_SAMPLES = 100_000
# Rows of one block of work (examples times samples): large enough for the matrix products, small enough that
# the widest layer's activations stay in the processor's cache.
BLOCK_ROWS = 2000
# Samples of an example in such a block, where as many are wanted.
SAMPLES_AT_ONCE = 50
# Log weights of an example that go to the host at once.
LOG_WEIGHTS_AT_ONCE = 5000
ARRAYS = ("log_likelihood", "effective_sample_size", "jvi2", "pareto_k")


@dataclass(frozen=True)
class Likelihoods:
    """Importance-sampled log likelihoods of some examples, float64 arrays `[examples]`.

    `log_likelihood` is each example's L_k, in nats: a lower bound of log p(x) in expectation. `effective_sample_size`
    is (sum w)^2 / sum w^2, from 1 to k. `jvi2` is the second-order jackknife's estimate of log p(x)
    (`iwae.bounds.jvi2`), no bound, and NaN for k below 3. `pareto_k` is the shape of the weights' tail
    (`iwae.evaluation.importance_weights.pareto_k`), NaN for k below 100: above 0.7, L_k can't be relied on as an
    estimate of log p(x).
    """

    log_likelihood: np.ndarray
    effective_sample_size: np.ndarray
    num_samples: int
    jvi2: np.ndarray
    pareto_k: np.ndarray

    def __repr__(self) -> str:
        count = len(self.log_likelihood)
        examples = f"{count:,} example{'s' * (count != 1)}"
        parts = [
            f"NLL {self.nll:.2f} ± {self.stderr:.2f} nats, L_{self.num_samples} of {examples}",
            f"mean effective sample size {self.mean_effective_sample_size:.1f}",
            f"delta {np.mean(self.delta):.3f} nats",
        ]
        if np.isfinite(self.pareto_k).any():
            parts.append(f"Pareto k-hat above 0.7 for {np.mean(self.pareto_k > 0.7):.0%}")
        return f"Likelihoods({'; '.join(parts)})"

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The four, by their names."""
        return {name: getattr(self, name) for name in ARRAYS}

    @property
    def delta(self) -> np.ndarray:
        """(1/ESS - 1/k) / 2 in nats `[examples]`: how far L_k lies below log p(x) to first order in 1/k, by the delta
        method (Nowozin 2018).

        A warning where it is large, no proof where it is small: it is never above half a nat, and heavy tails, whose
        large weights are not among the draws, make it look better than it is.
        """
        with np.errstate(divide="ignore"):
            return 0.5 * (1.0 / self.effective_sample_size - 1.0 / self.num_samples)

    @property
    def nll(self) -> float:
        """Mean of -L_k over the examples, in nats."""
        return -float(np.mean(self.log_likelihood))

    @property
    def stderr(self) -> float:
        """Standard error of `nll` over examples; NaN for a single one."""
        return standard_error(self.log_likelihood)

    @property
    def jvi2_nll(self) -> float:
        """Mean of -JVI-2 over the examples, in nats."""
        with np.errstate(invalid="ignore"):
            return -float(np.mean(self.jvi2))

    @property
    def mean_effective_sample_size(self) -> float:
        """Mean over examples."""
        return float(np.mean(self.effective_sample_size))


def standard_error(values: np.ndarray) -> float:
    """Of the mean of values `[examples]`; NaN for a single one."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def log_likelihood(
    model: HierarchicalVAE, x: ArrayLike, num_samples: int = 5000, seed: int = 0
) -> Float[np.ndarray, " n"]:
    """L_k of every row of `x`, `[n, visible]` or `[n, height, width]`, as the data are stored: float64 `[n]`, in nats.

    See `likelihoods`, which also says how far to trust them.
    """
    return likelihoods(model, x, num_samples=num_samples, seed=seed).log_likelihood


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
    `block_rows` (beyond rounding) and L_k of a smaller k uses the first draws of a larger. Memory does not grow with
    the number of examples, and with k only by the 3 sqrt(k) largest weights of each of 40 examples.
    `on_examples(done, total)` is called after each block. For a model from which units were removed, `kept` (bool
    `[units]` per layer of the original) gives it the same noise as the original, so that the two can be compared
    example by example.

    Raises IWAEError for no rows, rows that the model can't score, and a number of samples outside 1 to 100,000.
    """
    check_samples("num_samples", num_samples)
    options = {"seed": seed, "max_examples": max_examples, "block_rows": block_rows, "kept": kept}
    return ladder(model, data, [num_samples], split, on_examples=on_examples, **options)[0]


@standard_arithmetic()
def ladder(
    model: HierarchicalVAE,
    data: Dataset | ArrayLike,
    ks: Sequence[int],
    split: Split = "test",
    *,
    seed: int = 0,
    max_examples: int | None = None,
    first: int = 0,
    block_rows: int = BLOCK_ROWS,
    kept: tuple[np.ndarray, ...] | None = None,
    on_examples: OnExamples | None = None,
) -> list[Likelihoods]:
    """The likelihoods at each of `ks`, in rising order, from one pass over the draws of the largest: a smaller one has
    the first of them. Of the first `max_examples` rows those from number `first` on are measured: to the same bits as
    among all, where `first` is a multiple of `examples_at_once`. All else is as for `likelihoods`.

    Raises IWAEError for no k or one outside 1 to 100,000, and rows that the model can't score.
    """
    rungs = check_ks(ks)
    model, rows = on_data(model, data, split)
    samples_at_once = min(rungs[-1], SAMPLES_AT_ONCE)
    key, noise = purpose_key(seed, Purpose.LIKELIHOOD), NoiseLayout.of(model, kept)
    found: list[list[tuple[np.ndarray, ...]]] = [[] for _ in rungs]
    done = 0
    for x, indices, count, total in prepared_batches(
        model, rows, split, examples_at_once(rungs, block_rows), max_examples, first
    ):
        sums, tail, at = _no_samples(len(x)), Tail.empty(count, rungs[-1]), 0
        for k, values in zip(rungs, found, strict=True):
            while at < k:
                stop = min(at + LOG_WEIGHTS_AT_ONCE, k)
                numbers = jnp.int32(at), jnp.int32(stop)
                sums, log_weights = _add_samples(model, x, indices, key, sums, numbers, samples_at_once, noise)
                tail, at = tail.adding(np.asarray(log_weights)[: stop - at, :count].T), stop
            figures = [np.asarray(value, np.float64)[:count] for value in _figures(sums, jnp.int32(k))]
            values.append((*figures, tail.jvi2, tail.pareto_k))
        done += count
        if on_examples is not None:
            on_examples(done, total)
    return [
        Likelihoods(log_likelihood, effective, k, jvi2, pareto_k)
        for k, values in zip(rungs, found, strict=True)
        for log_likelihood, effective, jvi2, pareto_k in [map(np.concatenate, zip(*values, strict=True))]
    ]


def examples_at_once(ks: Sequence[int], block_rows: int = BLOCK_ROWS) -> int:
    """How many examples `ladder` has in a batch, where there are as many."""
    return max(1, block_rows // min(max(ks), SAMPLES_AT_ONCE))


def check_samples(name: str, value: int) -> None:
    """Raises IWAEError for a number of samples outside 1 to 100,000."""
    check_count(name, value, most=MAX_SAMPLES)


def check_ks(ks: Sequence[int], name: str = "ks") -> list[int]:
    """Numbers of samples in rising order, each once. Raises IWAEError for none, or one outside 1 to 100,000."""
    if not len(ks):
        raise IWAEError(f"`{name}` must be one or more numbers of samples, got none")
    for k in ks:
        check_samples(name, k)
    return sorted({int(k) for k in ks})


Sums = tuple[Float[Array, " batch"], Float[Array, " batch"], Float[Array, " batch"]]
"""The largest log weight so far; the sums of weights and of their squares, in units of the largest weight."""


def _no_samples(batch: int) -> Sums:
    return over_devices(jnp.full(batch, -jnp.inf)), over_devices(jnp.zeros(batch)), over_devices(jnp.zeros(batch))


@eqx.filter_jit
def _add_samples(
    model: HierarchicalVAE,
    x: Float[Array, "batch visible"],
    indices: Int[Array, " batch"],
    key: Key[Array, ""],
    sums: Sums,
    numbers: tuple[Int[Array, ""], Int[Array, ""]],
    samples_at_once: int,
    noise: NoiseLayout,
) -> tuple[Sums, Float[Array, "room batch"]]:
    """The sums with the samples from one of `numbers` to below the other added, by a running log-sum-exp over blocks,
    and their log weights, in the first rows.
    """
    start, stop = numbers
    model = model.with_prior_made()

    def body(block: Int[Array, ""], carry: tuple[Sums, Array]) -> tuple[Sums, Array]:
        (peak, total, squares), found = carry
        samples = start + block * samples_at_once + jnp.arange(samples_at_once)
        log_weights = model.log_weights_at(x, example_noise(noise, key, indices, samples))
        log_weights = jnp.where(samples[:, None] < stop, log_weights, -jnp.inf)
        new_peak = jnp.maximum(peak, jnp.max(log_weights, axis=0))
        # While every weight so far is zero, any finite shift gives the right sum: zero.
        shift = jnp.where(jnp.isneginf(new_peak), 0.0, new_peak)
        weights = jnp.exp(log_weights - shift)
        rescale = jnp.exp(peak - shift)
        added = (
            new_peak,
            total * rescale + jnp.sum(weights, axis=0),
            squares * jnp.square(rescale) + jnp.sum(jnp.square(weights), axis=0),
        )
        return added, jax.lax.dynamic_update_slice(found, log_weights, (block * samples_at_once, 0))

    blocks = (stop - start + samples_at_once - 1) // samples_at_once
    room = samples_at_once if samples_at_once < SAMPLES_AT_ONCE else LOG_WEIGHTS_AT_ONCE
    return jax.lax.fori_loop(0, blocks, body, (sums, jnp.zeros((room, len(x)))))


@jax.jit
def _figures(sums: Sums, num_samples: Int[Array, ""]) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """L_k and the effective sample size."""
    peak, total, squares = sums
    # An example all of whose weights are zero has L_k = -inf, and no sample counts for it.
    effective = jnp.where(total > 0, jnp.square(total) / squares, 0.0)
    return peak + jnp.log(total) - jnp.log(num_samples.astype(jnp.float32)), effective
