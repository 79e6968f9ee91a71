"""Removing units from a trained model."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from iwae.errors import IWAEError
from iwae.models.matmul import product
from iwae.models.networks.base import Linear
from iwae.models.networks.tanh import TanhNetwork
from iwae.models.vae import HierarchicalVAE


def units_to_keep(active: tuple[np.ndarray, ...], variances: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """bool `[units]` per layer: the active units, or the one with the largest variance where none is active."""
    kept = []
    for is_active, variance in zip(active, variances, strict=True):
        mask = is_active.copy()
        mask[np.argmax(variance)] = True
        kept.append(mask)
    return tuple(kept)


def check_prunable(network: str | None, prior: str | None, posterior: str | None) -> None:
    """Raises IWAEError unless the networks are tanh networks, the posteriors diagonal, and the prior is standard or a
    mixture (None: custom ones).
    """
    if network != "tanh":
        raise IWAEError(f"only models with tanh networks can be pruned: this one has {network or 'custom'} networks")
    for what, name, known in (("posterior", posterior, ("diagonal",)), ("prior", prior, ("standard", "mixture"))):
        if name not in known:
            raise IWAEError(
                f"only models with a {' or '.join(known)} {what} can be pruned: this one has a {name or 'custom'} one"
            )


def prune(model: HierarchicalVAE, kept: tuple[np.ndarray, ...], means: tuple[np.ndarray, ...]) -> HierarchicalVAE:
    """The model without the units that `kept` (bool `[units]` per layer) leaves out.

    What they gave to the layers above and below is replaced by their mean over data, `means` (`[units]` per
    layer), moved into those layers' biases; their own terms leave p and q. Burda et al. (2015, section 5.2)
    found that removing inactive units hardly changes the likelihood.

    Raises IWAEError as `check_prunable`: which of the weights of other parts belong to a unit is not known.
    """
    check_prunable(model.network, model.prior_name, model.posterior_name)
    encoder, decoder = list(model.encoder), list(model.decoder)
    for i, (mask, mean) in enumerate(zip(kept, means, strict=True)):
        encoder[i] = _keep_outputs(encoder[i], mask)
        decoder[i] = _keep_inputs(decoder[i], mask, mean)
        if i + 1 < len(encoder):
            encoder[i + 1] = _keep_inputs(encoder[i + 1], mask, mean)
            decoder[i + 1] = _keep_outputs(decoder[i + 1], mask)
    prior = model.prior.keep(jnp.asarray(kept[-1]))
    return replace(model, encoder=tuple(encoder), decoder=tuple(decoder), prior=prior)


def _keep_outputs(layer: Any, mask: np.ndarray) -> Any:
    return layer.with_heads([Linear(head.weight[:, mask], head.bias[mask]) for head in layer.heads])


def _keep_inputs(layer: Any, mask: np.ndarray, mean: np.ndarray) -> Any:
    def keep(linear: Linear) -> Linear:
        constant = product(jnp.asarray(mean[~mask], linear.weight.dtype), linear.weight[~mask])
        return Linear(linear.weight[mask], linear.bias + constant)

    if layer.network.hidden:
        first, *rest = layer.network.hidden
        return replace(layer, network=TanhNetwork((keep(first), *rest)))
    return layer.with_heads([keep(head) for head in layer.heads])
