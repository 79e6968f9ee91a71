"""Linear layers, and the two kinds of conditional distribution built from tanh networks."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.models.architecture import Precision
from iwae.models.distributions import Bernoulli, Normal, bernoulli_log_prob, bernoulli_log_prob_and_residual
from iwae.models.matmul import product

Network = TypeVar("Network")


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


def with_precision(network: Network, precision: Precision) -> Network:
    """The same network, or tree of them, with the products of all its linear layers in that precision."""

    def is_linear(node: Any) -> bool:
        return isinstance(node, Linear)

    return jax.tree.map(
        lambda node: replace(node, precision=precision) if is_linear(node) else node, network, is_leaf=is_linear
    )


def _create_hidden(sizes: Sequence[int], key: Key[Array, ""]) -> tuple[Linear, ...]:
    pairs = itertools.pairwise(sizes)
    return tuple(Linear.create(a, b, jax.random.fold_in(key, i)) for i, (a, b) in enumerate(pairs))


def _apply_hidden(hidden: tuple[Linear, ...], x: Float[Array, "*rows n"]) -> Float[Array, "*rows m"]:
    for linear in hidden:
        x = jnp.tanh(linear(x))
    return x


class GaussianLayer(eqx.Module):
    """A diagonal Gaussian whose mean and sigma = exp(linear) come from a tanh network of the input."""

    hidden: tuple[Linear, ...]
    mean: Linear
    log_sigma: Linear

    @classmethod
    def create(cls, n_in: int, hidden: Sequence[int], n_out: int, key: Key[Array, ""]) -> "GaussianLayer":
        """Draws every linear layer independently, the mean's and sigma's heads too."""
        sizes = (n_in, *hidden)
        keys = jax.random.split(key, 3)
        return cls(
            _create_hidden(sizes, keys[0]),
            Linear.create(sizes[-1], n_out, keys[1]),
            Linear.create(sizes[-1], n_out, keys[2]),
        )

    @property
    def units(self) -> int:
        """Number of units of the distribution."""
        return self.mean.bias.shape[-1]

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Normal:
        features = _apply_hidden(self.hidden, x)
        return Normal(self.mean(features), self.log_sigma(features))

    def log_prob(
        self, value: Float[Array, "*more n_out"], given: Float[Array, "*rows n_in"]
    ) -> Float[Array, "*result"]:
        """Log density of `value` in nats, summed over units, under the distribution that `given` makes."""
        return self(given).log_prob(value)


class BernoulliLayer(eqx.Module):
    """Independent Bernoullis whose logits come from a tanh network of the input."""

    hidden: tuple[Linear, ...]
    logits: Linear

    @classmethod
    def create(cls, n_in: int, hidden: Sequence[int], n_out: int, key: Key[Array, ""]) -> "BernoulliLayer":
        """Draws every linear layer independently."""
        sizes = (n_in, *hidden)
        keys = jax.random.split(key)
        return cls(_create_hidden(sizes, keys[0]), Linear.create(sizes[-1], n_out, keys[1]))

    @property
    def units(self) -> int:
        """Number of units of the distribution."""
        return self.logits.bias.shape[-1]

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Bernoulli:
        return Bernoulli(self.logits(_apply_hidden(self.hidden, x)))

    def log_prob(
        self, value: Float[Array, "*more n_out"], given: Float[Array, "*rows n_in"]
    ) -> Float[Array, "*result"]:
        """Log probability of `value` in nats, summed over units, under the distribution that `given` makes."""
        features = _apply_hidden(self.hidden, given)
        rows = features.shape[:-1]
        if jnp.broadcast_shapes(rows, value.shape[:-1]) == rows:
            return linear_bernoulli_log_prob(features, self.logits, value)
        return Bernoulli(self.logits(features)).log_prob(value)


@jax.custom_vjp
def linear_bernoulli_log_prob(
    features: Float[Array, "*rows n_in"], linear: Linear, value: Float[Array, "*more n_out"]
) -> Float[Array, "*rows"]:
    """log Bernoulli(value; sigmoid(linear(features))) in nats, summed over units, `value` broadcast to the rows.

    Its gradient never scales the array of residuals, value - sigmoid, which over the visible units is the largest of
    a training step: a row's weight goes onto its features instead, of which the paper's networks have a quarter as
    many. Reverse mode only: for forward mode differentiate `BernoulliLayer.__call__(given).log_prob(value)`.
    """
    return bernoulli_log_prob(value, linear(features))


def _forward(features: Array, linear: Linear, value: Array) -> tuple[Array, tuple[Any, ...]]:
    logits = linear(features)
    log_prob, residual = bernoulli_log_prob_and_residual(value, logits)
    return log_prob, (features, linear, logits, residual, value)


def _backward(saved: tuple[Any, ...], row_weights: Array) -> tuple[Array, Linear, Array]:
    features, linear, logits, residual, value = saved
    precision = linear.precision
    row_weights = row_weights[..., None]
    rows = (-1, residual.shape[-1])
    weighted = (row_weights * features).reshape(-1, features.shape[-1])
    to_linear = Linear(
        product(weighted.T, residual.reshape(rows), precision),
        product(row_weights.reshape(-1), residual.reshape(rows), "float32"),
        precision,
    )
    _, to_value = jax.vjp(lambda v: jnp.broadcast_to(v, logits.shape), value)
    to_features = row_weights * product(residual, linear.weight.T, precision)
    return to_features, to_linear, to_value(row_weights * logits)[0]


linear_bernoulli_log_prob.defvjp(_forward, _backward)


StochasticLayer = GaussianLayer | BernoulliLayer
