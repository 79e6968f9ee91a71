"""What a model makes of rows: codes, and reconstructions weighted by importance."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike

from iwae.arithmetic import standard_arithmetic
from iwae.errors import check_count
from iwae.evaluation.batches import NoiseLayout, checked_rows, example_noise, prepared_batches
from iwae.models.matmul import product
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

# Samples and examples of one block of work.
ROWS = 2000


@standard_arithmetic()
def encode(model: HierarchicalVAE, x: ArrayLike, layer: int = 1) -> Float[np.ndarray, "n units"]:
    """Codes of stored rows `[n, visible]` or `[n, height, width]`: the posterior mean of the stochastic `layer`, from
    1, with the layers below it at their own means; float32 `[n, units]`.

    Raises IWAEError for a layer that there is not, and rows that the model can't score.
    """
    check_count("layer", layer)
    check_count("layer", len(model.encoder) - layer, 0, ", counted from the top,")
    layer = int(layer)
    rows, means = checked_rows(model, x), []
    for batch, _, count, _ in prepared_batches(model, rows, "test", ROWS):
        means.append(np.asarray(_means(model, batch, layer))[:count])
    return np.concatenate(means)


@eqx.filter_jit
def _means(model: HierarchicalVAE, x: Float[Array, "batch visible"], layer: int) -> Float[Array, "batch units"]:
    value = model.encoder_input(x)
    for conditional in model.encoder[:layer]:
        value = conditional(value).mean
    return value


@standard_arithmetic()
def reconstruct(
    model: HierarchicalVAE, x: ArrayLike, num_samples: int = 100, seed: int = 0
) -> Float[np.ndarray, "n visible"]:
    """The decoded means of posterior samples, weighted by their normalized importance weights: an estimate of the mean
    of p(x' | x), in the units of the rows; float32 `[n, visible]`.

    An example's draws are those of `log_likelihood` with the same `seed`.

    Raises IWAEError for no samples, and rows that the model can't score.
    """
    check_count("num_samples", num_samples)
    num_samples = int(num_samples)  # NumPy's integers would be traced.
    rows, means = checked_rows(model, x), []
    key, layout = purpose_key(seed, Purpose.LIKELIHOOD), NoiseLayout.of(model)
    for batch, indices, count, _ in prepared_batches(model, rows, "test", max(1, ROWS // num_samples)):
        means.append(np.asarray(_weighted_mean(model, batch, indices, key, num_samples, layout))[:count])
    return np.concatenate(means)


@eqx.filter_jit
def _weighted_mean(
    model: HierarchicalVAE,
    x: Float[Array, "batch visible"],
    indices: Int[Array, " batch"],
    key: Key[Array, ""],
    num_samples: int,
    layout: NoiseLayout,
) -> Float[Array, "batch visible"]:
    posteriors, latents = model.sample_posterior(x, example_noise(layout, key, indices, jnp.arange(num_samples)))
    log_q = sum(q.log_prob(h) for q, h in zip(posteriors, latents, strict=True))
    weights = jax.nn.softmax(model.log_joint(x, latents) - log_q, axis=0)
    means = model.likelihood.original(model.decoder[0](latents[0]).mean)
    return jax.vmap(product, in_axes=1)(weights, means)
