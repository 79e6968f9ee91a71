"""What a model has learned, as arrays to be shown: samples, reconstructions, traversals, weights."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from iwae.arithmetic import standard_arithmetic
from iwae.data import Dataset, Split
from iwae.evaluation.active_units import ACTIVE_THRESHOLD
from iwae.evaluation.examples import prepared
from iwae.evaluation.posterior import posterior
from iwae.models.distributions import Bernoulli
from iwae.models.networks.base import Linear
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

POSTERIOR_SAMPLES = 1000
DRAWN_AT_ONCE = 1000
TRAVERSED_UNITS = 25
TRAVERSED_VALUES = (-3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3)
# Between its two values, a binary unit's probability: what the layers below are given then is a mean.
TRAVERSED_PROBABILITIES = (0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1)


@standard_arithmetic()
def samples(model: HierarchicalVAE, count: int, seed: int = 0) -> np.ndarray:
    """Visible means of `count` ancestral samples, `[count, visible]`: those of the pictures of samples."""
    return np.asarray(model.sample(purpose_key(seed, Purpose.SAMPLE), count))


@standard_arithmetic()
def draws(model: HierarchicalVAE, count: int, seed: int = 0) -> np.ndarray:
    """`count` draws x ~ p(x), not means, in the units of the data: `[count, visible]`. The first ones are the same
    whatever their number.
    """
    key = purpose_key(seed, Purpose.SAMPLE)
    parts = [_draws(model, jax.random.fold_in(key, start)) for start in range(0, count, DRAWN_AT_ONCE)]
    return np.concatenate([np.asarray(part) for part in parts])[:count]


@eqx.filter_jit
def _draws(model: HierarchicalVAE, key: Key[Array, ""]) -> Float[Array, "draws visible"]:
    return model.likelihood.original(model.sample_joint(key, DRAWN_AT_ONCE)[0])


@standard_arithmetic()
def reconstructions(
    model: HierarchicalVAE, dataset: Dataset, split: Split = "test", *, num_examples: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first examples of a split as they are measured (grey values binarized), and the visible means decoded from
    one draw each of p(h | x), by `iwae.posterior`: two float32 arrays `[examples, visible]`, in the units of the data.
    """
    indices = np.arange(min(num_examples, len(dataset.split(split))))
    model, x, _ = prepared(model, dataset, split, indices)
    drawn = posterior(model, dataset, split, num_samples=POSTERIOR_SAMPLES, indices=indices)[0][0]
    means = model.likelihood.for_rows(model.decoder[0](jnp.asarray(drawn)), jnp.asarray(x)).mean
    originals, decoded = (np.asarray(model.likelihood.original(jnp.asarray(values))) for values in (x, means))
    return originals, decoded


def traversed_units(variances: np.ndarray) -> list[int]:
    """Indices of the active units, the largest variance first, at most 25 of them."""
    order = np.argsort(-variances, kind="stable")
    return order[variances[order] > ACTIVE_THRESHOLD][:TRAVERSED_UNITS].tolist()


def traversed_values(model: HierarchicalVAE) -> Sequence[float]:
    """The values that a unit of the top layer takes in turn."""
    return TRAVERSED_PROBABILITIES if isinstance(model.prior, Bernoulli) else TRAVERSED_VALUES


@standard_arithmetic()
def traverse(model: HierarchicalVAE, units: Sequence[int], values: Sequence[float]) -> np.ndarray:
    """Visible means `[units, values, visible]` when one top-layer unit at a time takes each of `values`.

    The other units of the top layer are at the prior's mean, and the layers below at their conditional means.
    """
    num_units, num_values = len(units), len(values)
    top = np.tile(np.asarray(model.top_prior.resting(model.latent[-1]), np.float32), (num_units, num_values, 1))
    top[np.arange(num_units), :, np.asarray(units, int)] = np.asarray(values, np.float32)
    value = jnp.asarray(top.reshape(num_units * num_values, -1))
    for layer in model.decoder[:0:-1]:
        value = layer(value).mean
    means = model.likelihood.original(model.decoder[0](value).mean)
    return np.asarray(means).reshape(num_units, num_values, model.visible)


def first_encoder_weights(model: HierarchicalVAE) -> np.ndarray | None:
    """Weights from x into each unit of the encoder's first layer, `[units, visible]`; None for networks that are not
    tanh networks.
    """
    layer: Any = model.encoder[0]
    if model.network != "tanh":
        return None
    return np.asarray((layer.network.hidden or layer.heads)[0].weight)[: model.visible].T


def last_decoder_weights(model: HierarchicalVAE) -> np.ndarray | None:
    """Weights from each feature of the decoder's last network to the visible layer's first output of each unit (the
    logit of a Bernoulli), `[features, visible]`; None where that layer is not linear.
    """
    layer: Any = model.decoder[0]
    return np.asarray(layer.outputs.weight)[:, : model.visible] if isinstance(layer.outputs, Linear) else None


def by_norm(weights: np.ndarray, count: int) -> np.ndarray:
    """The `count` rows of `[units, visible]` with the largest Euclidean norm, largest first."""
    return weights[np.argsort(-np.linalg.norm(weights, axis=1), kind="stable")[:count]]
