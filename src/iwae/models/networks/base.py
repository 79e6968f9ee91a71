"""What networks are made of, and how they are called.

A network is any module from an input to features. Those of this library take any leading axes (`takes_batches`); any
other is taken for an Equinox module of one example, `[n_in]` to `[n_features]`, and is mapped over the rows.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.errors import IWAEError
from iwae.models.architecture import Precision
from iwae.models.matmul import product

Module = TypeVar("Module")
Network = Callable[[Array], Array]
MakeNetwork = Callable[..., Any]
"""Makes a network of sizes, inputs first, and a key."""


class Linear(eqx.Module):
    """`x @ weight + bias`, with `weight` `[in, out]` and `bias` `[out]`, both float32 whatever the product's
    `precision`.
    """

    weight: Float[Array, "n_in n_out"]
    bias: Float[Array, " n_out"]
    precision: Precision = eqx.field(static=True, default="float32")

    @classmethod
    def create(cls, n_in: int, n_out: int, key: Key[Array, ""]) -> "Linear":
        """Glorot uniform weights, +-sqrt(6 / (n_in + n_out)) (Glorot & Bengio 2010), and zero biases."""
        limit = math.sqrt(6.0 / (n_in + n_out))
        weight = jax.random.uniform(key, (n_in, n_out), minval=-limit, maxval=limit)
        return cls(weight, jnp.zeros(n_out))

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_out"]:
        return product(x, self.weight, self.precision) + self.bias


def with_precision(module: Module, precision: Precision) -> Module:
    """The same module, or tree of them, with the products of all its linear layers in that precision."""

    def is_linear(node: Any) -> bool:
        return isinstance(node, Linear)

    return jax.tree.map(
        lambda node: replace(node, precision=precision) if is_linear(node) else node, module, is_leaf=is_linear
    )


def features(network: Network, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_features"]:
    """What a network makes of every row."""
    if getattr(network, "takes_batches", False):
        return network(x)
    rows = jax.vmap(network)(x.reshape(-1, x.shape[-1]))
    return rows.reshape(*x.shape[:-1], -1)


def count_features(network: Network, inputs: int) -> int:
    """Number of features that a network gives for so many inputs.

    Raises IWAEError, with the network's own message, where it can't take them.
    """
    try:
        found = eqx.filter_eval_shape(lambda net, x: features(net, x), network, jnp.zeros((1, inputs)))
    except Exception as error:
        message = " ".join(str(error).split())[:200]
        raise IWAEError(
            f"{type(network).__name__} can't take an example of {inputs} numbers: {message}; a network maps one"
            " example [n_in] to features"
        ) from None
    return found.shape[-1]
