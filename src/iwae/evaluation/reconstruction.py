"""What a model makes of rows: codes, and reconstructions weighted by importance."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike

from iwae.arithmetic import standard_arithmetic
from iwae.errors import check_count
from iwae.evaluation.batches import NoiseLayout, example_noise
from iwae.evaluation.examples import example_batches, prepared
from iwae.evaluation.log_weights import SAMPLES_AT_ONCE
from iwae.models.matmul import product
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key


@standard_arithmetic()
def encode(model: HierarchicalVAE, x: ArrayLike, layer: int = 1) -> Float[np.ndarray, "n units"]:
    """Codes of stored rows `[n, visible]` or `[n, height, width]`: the posterior mean of the stochastic `layer`, from
    1, with the layers below it at their own means; float32 `[n, units]`.

    Raises IWAEError for a layer that there is not, and rows that the model can't score.
    """
    check_count("layer", layer)
    check_count("layer", len(model.encoder) - layer, 0, ", counted from the top,")
    layer = int(layer)
    model, rows, indices = prepared(model, x, "test", None)
    batches = example_batches(rows, indices)
    return np.concatenate([np.asarray(_means(model, batch.x, layer))[: batch.real] for batch in batches])


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

    An example's draws are those of `log_likelihood` with the same `seed`. Memory does not grow with `num_samples`.

    Raises IWAEError for no samples, and rows that the model can't score.
    """
    return weighted_means(*prepared(model, x, "test", None), num_samples=num_samples, seed=seed)


def weighted_means(
    model: HierarchicalVAE,
    rows: np.ndarray,
    indices: np.ndarray,
    *,
    num_samples: int,
    seed: int,
    of_missing: bool = False,
) -> Float[np.ndarray, "n visible"]:
    """`reconstruct` of prepared rows, whose draws are those of `indices`; with `of_missing` each value's mean is the
    one that it has if it is missing. A row's result does not depend on the others.
    """
    check_count("num_samples", num_samples)
    key, layout = purpose_key(seed, Purpose.LIKELIHOOD), NoiseLayout.of(model)
    means = []
    for batch in example_batches(rows, indices):
        found = _weighted_means(model, batch.x, batch.indices, key, jnp.int32(num_samples), layout, of_missing)
        means.append(np.asarray(found)[: batch.real])
    return np.concatenate(means)


@eqx.filter_jit
def _weighted_means(
    model: HierarchicalVAE,
    x: Float[Array, "batch visible"],
    indices: Int[Array, " batch"],
    key: Key[Array, ""],
    num_samples: Int[Array, ""],
    layout: NoiseLayout,
    of_missing: bool,
) -> Float[Array, "batch visible"]:
    """By running sums over blocks of samples, relative to the largest weight so far."""

    def body(block: Int[Array, ""], carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        peak, total, sums = carry
        samples = block * SAMPLES_AT_ONCE + jnp.arange(SAMPLES_AT_ONCE)
        posteriors, latents = model.sample_posterior(x, example_noise(layout, key, indices, samples))
        log_q = sum(q.log_prob(h) for q, h in zip(posteriors, latents, strict=True))
        log_weights = jnp.where(samples[:, None] < num_samples, model.log_joint(x, latents) - log_q, -jnp.inf)
        new_peak = jnp.maximum(peak, jnp.max(log_weights, axis=0))
        weights, rescale = jnp.exp(log_weights - new_peak), jnp.exp(peak - new_peak)
        given = model.likelihood.for_rows(model.decoder[0](latents[0]), x)
        if of_missing and model.missing is not None:
            means = model.likelihood.original(model.missing.mean(given))
        else:
            means = model.likelihood.averaged(given)
        added = jax.vmap(product, in_axes=1)(weights, means)
        return new_peak, total * rescale + jnp.sum(weights, axis=0), sums * rescale[:, None] + added

    blocks = (num_samples + SAMPLES_AT_ONCE - 1) // SAMPLES_AT_ONCE
    start = (
        jnp.full(len(x), -jnp.inf),
        jnp.zeros(len(x)),
        jnp.zeros((len(x), model.likelihood.num_inputs(model.visible))),
    )
    _, total, sums = jax.lax.fori_loop(0, blocks, body, start)
    return model.likelihood.summary(sums / total[:, None])
