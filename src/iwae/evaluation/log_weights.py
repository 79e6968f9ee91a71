"""Log weights of prepared examples, whose figures do not depend on each other."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from iwae.evaluation.batches import NoiseLayout, example_noise
from iwae.evaluation.examples import Batch, example_batches, log_mean
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

SAMPLES_AT_ONCE = 32


def log_likelihood_of_prepared(
    model: HierarchicalVAE, rows: np.ndarray, indices: np.ndarray, *, num_samples: int, seed: int = 0
) -> Float[np.ndarray, " n"]:
    """L_k of prepared rows in nats, with the draws of `indices`. A row's figure does not depend on the others."""
    batches = example_batches(rows, indices)
    return np.concatenate([log_mean(importance_log_weights(model, batch, num_samples, seed)) for batch in batches])


def importance_log_weights(
    model: HierarchicalVAE, batch: Batch, num_samples: int, seed: int, layout: NoiseLayout | None = None
) -> Float[np.ndarray, "k real"]:
    """log w of the first samples of a batch's real examples, float32; the draws of `iwae.likelihoods`."""
    key = purpose_key(seed, Purpose.LIKELIHOOD)
    layout = layout or NoiseLayout.of(model)
    found = _log_weights(model, batch.x, batch.indices, key, blocks_of(num_samples), layout)
    return of_blocks(found, num_samples, batch.real)


@eqx.filter_jit
def _log_weights(
    model: HierarchicalVAE,
    x: Float[Array, "examples visible"],
    indices: Int[Array, " examples"],
    key: Key[Array, ""],
    blocks: Int[Array, "blocks k"],
    layout: NoiseLayout,
) -> Float[Array, "blocks k examples"]:
    model = model.with_prior_made()
    return jax.lax.map(lambda samples: model.log_weights_at(x, example_noise(layout, key, indices, samples)), blocks)


def blocks_of(num_samples: int) -> Int[Array, "blocks k"]:
    """The samples' numbers in whole blocks, which have some more than asked for."""
    return jnp.arange(math.ceil(num_samples / SAMPLES_AT_ONCE) * SAMPLES_AT_ONCE).reshape(-1, SAMPLES_AT_ONCE)


def of_blocks(found: Float[Array, "blocks k examples"], num_samples: int, real: int) -> Float[np.ndarray, "k real"]:
    """What was found for the samples that were asked for, and the examples that are no padding."""
    return np.asarray(found).reshape(-1, found.shape[-1])[:num_samples, :real]
