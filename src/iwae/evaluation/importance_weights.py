"""What a trained model does with data, as arrays: log weights, reconstructions, traversals, weights."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from iwae.data import Dataset, Split
from iwae.errors import IWAEError
from iwae.evaluation.batches import NoiseLayout, example_noise, on_data, prepared_batches
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

SAMPLES_AT_ONCE = 50
EXAMPLES_AT_ONCE = 40


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


def reconstructions(
    model: HierarchicalVAE, dataset: Dataset, split: Split = "test", *, num_examples: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first examples of a split, binarized as for measuring, and the visible means decoded from the mean of
    q(h_1 | x): two float32 arrays `[examples, visible]`.
    """
    model, rows = on_data(model, dataset, split)
    originals, decoded = [], []
    for x, _, count, _ in prepared_batches(model, rows, split, EXAMPLES_AT_ONCE, num_examples):
        originals.append(np.asarray(x)[:count])
        decoded.append(np.asarray(model.likelihood.original(model.decoder[0](model.encoder[0](x).mean).mean))[:count])
    return np.concatenate(originals), np.concatenate(decoded)


def traverse(model: HierarchicalVAE, units: Sequence[int], values: Sequence[float]) -> np.ndarray:
    """Visible means `[units, values, visible]` when one top-layer unit at a time takes each of `values`.

    The other units of the top layer are at the prior's mean, and the layers below at their conditional means.
    """
    num_units, num_values = len(units), len(values)
    top = np.tile(np.asarray(model.prior.resting(model.latent[-1]), np.float32), (num_units, num_values, 1))
    top[np.arange(num_units), :, np.asarray(units, int)] = np.asarray(values, np.float32)
    value = jnp.asarray(top.reshape(num_units * num_values, -1))
    for layer in model.decoder[:0:-1]:
        value = layer(value).mean
    return np.asarray(model.likelihood.original(model.decoder[0](value).mean)).reshape(num_units, num_values, -1)


def first_encoder_weights(model: HierarchicalVAE) -> np.ndarray | None:
    """Weights into each unit of the encoder's first layer, `[units, visible]`; None where its network is no tanh
    network.
    """
    layer: Any = model.encoder[0]
    if not model.has_tanh_networks:
        return None
    return np.asarray((layer.network.hidden or layer.heads)[0].weight).T


def last_decoder_weights(model: HierarchicalVAE) -> np.ndarray:
    """Weights from each feature of the decoder's last network to the visible layer's first output of each unit (the
    logit of a Bernoulli), `[features, visible]`.
    """
    layer: Any = model.decoder[0]
    return np.asarray(layer.outputs.weight)[:, : model.visible]


def by_norm(weights: np.ndarray, count: int) -> np.ndarray:
    """The `count` rows of `[units, visible]` with the largest Euclidean norm, largest first."""
    return weights[np.argsort(-np.linalg.norm(weights, axis=1), kind="stable")[:count]]


def samples(model: HierarchicalVAE, count: int, seed: int = 0) -> np.ndarray:
    """Visible means of `count` ancestral samples, `[count, visible]`: those that `iwae sample` draws."""
    return np.asarray(model.sample(purpose_key(seed, Purpose.SAMPLE), count))
