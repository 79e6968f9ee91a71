"""A model in a few lines that a person can read."""

from typing import Any

import equinox as eqx
import jax


def description(model: Any) -> str:
    """A `HierarchicalVAE`: its sizes, then a line for every conditional distribution, from the data upwards."""
    parts = [(f"q(h_{i} | {_below(i)})", layer) for i, layer in enumerate(model.encoder, 1)]
    parts += [(f"p({_below(i)} | h_{i})", layer) for i, layer in enumerate(model.decoder, 1)]
    lines = [(name, f"{_kind(layer)}, {layer.units} units{_network(layer)}") for name, layer in parts]
    lines.append((f"p(h_{len(model.encoder)})", type(model.prior).__name__))
    if model.missing is not None:
        lines.append(("p(missing)", type(model.missing).__name__))
    width = max(len(name) for name, _ in lines)
    count = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    heading = f"{type(model).__name__}: {model.visible} values, latent {'+'.join(map(str, model.latent))}"
    return "\n".join([f"{heading}, {count:,} weights", *(f"  {name:<{width}}  {text}" for name, text in lines)])


def _below(layer: int) -> str:
    return "x" if layer == 1 else f"h_{layer - 1}"


def _kind(layer: Any) -> str:
    likelihood = getattr(layer, "likelihood", None)
    return type(layer).__name__.removesuffix("Layer") if likelihood is None else likelihood.words


def _network(layer: Any) -> str:
    network = getattr(layer, "network", None)
    if network is None:
        return ""
    widths = getattr(network, "widths", None)
    sizes = "" if widths is None else f" {'-'.join(map(str, widths)) or 'without layers'}"
    return f", {getattr(network, '__name__', type(network).__name__)}{sizes}"
