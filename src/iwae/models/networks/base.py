"""What networks are made of, and how they are called.

A network is any module from an input to features. Those of this library take any leading axes (`takes_batches`); any
other is taken for an Equinox module of one example, `[n_in]` to `[n_features]`, and is mapped over the rows.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypedDict, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.errors import IWAEError
from iwae.models.architecture import Activation, Precision
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

    return _each(lambda node: hasattr(node, "precision"), lambda node: replace(node, precision=precision), module)


def with_dropout(module: Module, key: Key[Array, ""]) -> Module:
    """The same module, or tree of them, as it is trained: every `Dropout` draws its mask from a key of its own."""
    numbers = itertools.count()
    return _each(
        lambda node: isinstance(node, Dropout),
        lambda node: replace(node, key=jax.random.fold_in(key, next(numbers))),
        module,
    )


def has_dropout(module: Any) -> bool:
    """Whether there is a `Dropout` in a module, or tree of them."""
    return any(isinstance(n, Dropout) for n in jax.tree.leaves(module, is_leaf=lambda n: isinstance(n, Dropout)))


def _each(is_one: Callable[[Any], bool], change: Callable[[Any], Any], module: Module) -> Module:
    """The tree with its nodes of one kind changed."""
    return jax.tree.map(lambda node: change(node) if is_one(node) else node, module, is_leaf=is_one)


class Dropout(eqx.Module):
    """Sets numbers to zero with probability `rate` and divides the others by 1 - rate (Srivastava et al. 2014), where
    it has a `key`, which training gives it (`with_dropout`); the identity without one, as models are measured.

    An example has one mask for all of its samples, which are along the axes before: the k weights of a bound are
    then of one model p and one q, and every estimator is of that model's bound.
    """

    rate: float = eqx.field(static=True)
    key: Key[Array, ""] | None = None

    def __call__(self, x: Float[Array, "*rows n"], dims: int = 1) -> Float[Array, "*rows n"]:
        """`dims` is the number of axes of one example's numbers, the last ones."""
        if self.key is None or self.rate == 0.0:
            return x
        kept = jax.random.bernoulli(self.key, 1.0 - self.rate, x.shape[-1 - dims :])
        return jnp.where(kept, x / (1.0 - self.rate), 0.0)


class LayerNorm(eqx.Module):
    """Numbers of the last axis less their mean, over their standard deviation; then a learned `scale` and `shift` of
    each (Ba, Kiros & Hinton 2016).
    """

    scale: Float[Array, " n"]
    shift: Float[Array, " n"]

    @classmethod
    def create(cls, n: int) -> "LayerNorm":
        """Without a scale and a shift at first."""
        return cls(jnp.ones(n), jnp.zeros(n))

    def __call__(self, x: Float[Array, "*rows n"]) -> Float[Array, "*rows n"]:
        return self.scale * jax.nn.standardize(x, epsilon=1e-5) + self.shift


class Options(TypedDict, total=False):
    """What follows a network's linear layers; see `Nonlinearity`, which has the defaults."""

    activation: Activation
    dropout: float
    layer_norm: bool


class Nonlinearity(eqx.Module):
    """What follows a linear layer: layer norm, the activation, dropout; each where it is there."""

    norm: LayerNorm | None
    dropout: Dropout | None
    activation: Activation | None = eqx.field(static=True)

    @classmethod
    def create(
        cls, n: int, activation: Activation | None = "silu", dropout: float = 0.0, layer_norm: bool = False
    ) -> "Nonlinearity":
        """After a layer of `n` numbers; `dropout` is the share of them that a training step sets to zero."""
        return cls(LayerNorm.create(n) if layer_norm else None, Dropout(dropout) if dropout else None, activation)

    def __call__(self, x: Float[Array, "*rows n"], dims: int = 1) -> Float[Array, "*rows n"]:
        """`dims` is the number of axes of one example's numbers, the last ones."""
        x = x if self.norm is None else self.norm(x)
        x = x if self.activation is None else getattr(jax.nn, self.activation.replace("-", "_"))(x)
        return x if self.dropout is None else self.dropout(x, dims)

    @property
    def settings(self) -> dict[str, Any]:
        """The options of `Architecture` that it was made by."""
        rate = 0.0 if self.dropout is None else self.dropout.rate
        return {"activation": self.activation, "dropout": rate, "layer_norm": self.norm is not None}


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
