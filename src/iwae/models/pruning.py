"""Removing units from a trained model."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from iwae.evaluation.likelihood import ActiveUnits
from iwae.models.distributions import Bernoulli
from iwae.models.layers import GaussianLayer, Linear, StochasticLayer
from iwae.models.matmul import product
from iwae.models.vae import HierarchicalVAE


def units_to_keep(units: ActiveUnits) -> tuple[np.ndarray, ...]:
    """bool `[units]` per layer: the active units, or the one with the largest variance where none is active."""
    kept = []
    for active, variance in zip(units.active, units.variances, strict=True):
        mask = active.copy()
        mask[np.argmax(variance)] = True
        kept.append(mask)
    return tuple(kept)


def prune(model: HierarchicalVAE, kept: tuple[np.ndarray, ...], means: tuple[np.ndarray, ...]) -> HierarchicalVAE:
    """The model without the units that `kept` (bool `[units]` per layer) leaves out.

    What they gave to the layers above and below is replaced by their mean over data, `means` (`[units]` per
    layer), moved into those layers' biases; their own terms leave p and q. Burda et al. (2015, section 5.2)
    found that removing inactive units hardly changes the likelihood.
    """
    encoder, decoder = list(model.encoder), list(model.decoder)
    for i, (mask, mean) in enumerate(zip(kept, means, strict=True)):
        encoder[i] = _keep_outputs(encoder[i], mask)
        decoder[i] = _keep_inputs(decoder[i], mask, mean)
        if i + 1 < len(encoder):
            encoder[i + 1] = _keep_inputs(encoder[i + 1], mask, mean)
            decoder[i + 1] = _keep_outputs(decoder[i + 1], mask)
    prior = Bernoulli(model.prior.logits[kept[-1]]) if isinstance(model.prior, Bernoulli) else model.prior
    return HierarchicalVAE(tuple(encoder), tuple(decoder), prior)


def _keep_outputs(layer: StochasticLayer, mask: np.ndarray) -> StochasticLayer:
    def keep(linear: Linear) -> Linear:
        return Linear(linear.weight[:, mask], linear.bias[mask])

    if isinstance(layer, GaussianLayer):
        return replace(layer, mean=keep(layer.mean), log_sigma=keep(layer.log_sigma))
    return replace(layer, logits=keep(layer.logits))


def _keep_inputs(layer: StochasticLayer, mask: np.ndarray, mean: np.ndarray) -> StochasticLayer:
    def keep(linear: Linear) -> Linear:
        constant = product(jnp.asarray(mean[~mask], linear.weight.dtype), linear.weight[~mask])
        return Linear(linear.weight[mask], linear.bias + constant)

    if layer.hidden:
        return replace(layer, hidden=(keep(layer.hidden[0]), *layer.hidden[1:]))
    if isinstance(layer, GaussianLayer):
        return replace(layer, mean=keep(layer.mean), log_sigma=keep(layer.log_sigma))
    return replace(layer, logits=keep(layer.logits))
