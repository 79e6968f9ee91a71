"""Draws from the posterior p(h | x) that are better than those of q(h | x)."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike

from iwae.arithmetic import standard_arithmetic
from iwae.data.dataset import Dataset, Split
from iwae.evaluation.batches import NoiseLayout
from iwae.evaluation.chains import AnnealedSettings, check_latents, run_chains, tune
from iwae.evaluation.examples import Batch, example_batches, prepared
from iwae.evaluation.likelihood import check_samples
from iwae.evaluation.log_weights import importance_log_weights
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key


@standard_arithmetic()
def posterior(
    model: HierarchicalVAE,
    data: Dataset | ArrayLike,
    split: Split = "test",
    *,
    num_samples: int = 1000,
    num_draws: int = 1,
    seed: int = 0,
    indices: Sequence[int] | np.ndarray | None = None,
) -> tuple[Float[np.ndarray, "num_draws n _"], ...]:
    """Draws of every layer, h_1 first, from p(h | x) by sampling importance resampling (Rubin 1987).

    Each is one of `num_samples` samples of q(h | x), those of `iwae.likelihoods`, taken with a probability that is
    proportional to its importance weight. With one sample they are draws of q; with many they come from p(h | x), as
    far as the effective sample size is far above 1. `data` and `split` are as for `iwae.likelihoods`, and `indices` the
    rows that are used, by default all.

    Raises IWAEError for a number of samples or draws outside 1 to 100,000, and rows that the model can't score.
    """
    check_samples("num_samples", num_samples)
    check_samples("num_draws", num_draws)
    model, rows, numbers = prepared(model, data, split, indices)
    found = []
    for batch in example_batches(rows, numbers):
        layers = resample(model, batch, num_samples, num_draws, seed)
        found.append([np.asarray(layer)[:, : batch.real] for layer in layers])
    return tuple(np.concatenate(layer, axis=1) for layer in zip(*found, strict=True))


def resample(
    model: HierarchicalVAE, batch: Batch, num_samples: int, num_draws: int, seed: int
) -> tuple[Float[Array, "num_draws examples _"], ...]:
    """`posterior` for a batch; what it gives for padding means nothing."""
    log_weights = np.zeros((num_samples, len(batch.x)), np.float32)
    log_weights[:, : batch.real] = importance_log_weights(model, batch, num_samples, seed)
    chosen = _choose(_resampling_keys(seed, batch.indices), jnp.asarray(log_weights), num_draws)
    key = purpose_key(seed, Purpose.LIKELIHOOD)
    return _samples(model, batch.x, batch.indices, key, chosen, NoiseLayout.of(model))


@standard_arithmetic()
def annealed_posterior(
    model: HierarchicalVAE,
    data: Dataset | ArrayLike,
    split: Split = "test",
    *,
    num_draws: int = 1,
    settings: AnnealedSettings | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
) -> tuple[Float[np.ndarray, "num_draws n _"], ...]:
    """As `posterior`, from the ends of annealed chains (`iwae.ais`), by the weights of the chains.

    Raises IWAEError for no draws, and as `iwae.ais` does.
    """
    check_samples("num_draws", num_draws)
    settings = settings or AnnealedSettings()
    found = []
    check_latents(model)
    model, rows, numbers = prepared(model, data, split, indices)
    for batch in example_batches(rows, numbers):
        chains = run_chains(model, tune(model, batch, settings), settings, batch.every_chain(settings.chains))
        log_weights = chains.log_weights.reshape(batch.real, settings.chains).T
        ends = chains.ends.reshape(batch.real, settings.chains, -1)
        relative = jnp.asarray(log_weights - log_weights.max(axis=0), jnp.float32)
        chosen = np.asarray(_choose(_resampling_keys(settings.seed, batch.indices[: batch.real]), relative, num_draws))
        found.append(ends[np.arange(batch.real), chosen])
    flat = np.concatenate(found, axis=1)
    return tuple(np.split(flat, np.cumsum(model.latent)[:-1], axis=-1))


def _resampling_keys(seed: int, indices: Int[Array, " n"]) -> Key[Array, " n"]:
    key = purpose_key(seed, Purpose.RESAMPLE)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)


def _choose(keys: Key[Array, " n"], log_weights: Float[Array, "k n"], num_draws: int) -> Int[Array, "num_draws n"]:
    """Numbers of samples, with probabilities that are proportional to the weights, one row a draw."""

    def one(key: Array, column: Array) -> Array:
        uniform = jax.vmap(lambda d: jax.random.uniform(jax.random.fold_in(key, d)))(jnp.arange(num_draws))
        cumulative = jnp.cumsum(jax.nn.softmax(column))
        # Draws are below 1: none lies beyond the last.
        return jnp.searchsorted(cumulative, uniform * cumulative[-1], side="right")

    return jax.vmap(one, in_axes=(0, 1), out_axes=1)(keys, log_weights)


@eqx.filter_jit
def _samples(
    model: HierarchicalVAE,
    x: Float[Array, "n visible"],
    indices: Int[Array, " n"],
    key: Key[Array, ""],
    chosen: Int[Array, "num_draws n"],
    layout: NoiseLayout,
) -> tuple[Float[Array, "num_draws n _"], ...]:
    """The samples of those numbers, made anew from their noise: nothing but the weights has to be kept."""

    def draw(index: Array, sample: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, index), sample), (layout.width,))

    noise = jax.vmap(jax.vmap(draw), in_axes=(None, 0))(indices, chosen)
    return model.sample_posterior(x, tuple(noise[..., jnp.asarray(columns)] for columns in layout.columns))[1]
