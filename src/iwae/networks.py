"""Linear layers, and the two kinds of conditional distribution built from tanh networks."""

import itertools
import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.distributions import Bernoulli, Normal


class Linear(eqx.Module):
    """`x @ weight + bias`, with `weight` `[in, out]` and `bias` `[out]`."""

    weight: Float[Array, "n_in n_out"]
    bias: Float[Array, " n_out"]

    @classmethod
    def create(cls, n_in: int, n_out: int, key: Key[Array, ""]) -> "Linear":
        """Glorot uniform weights, +-sqrt(6 / (n_in + n_out)) (Glorot & Bengio 2010), and zero biases."""
        limit = math.sqrt(6.0 / (n_in + n_out))
        weight = jax.random.uniform(key, (n_in, n_out), minval=-limit, maxval=limit)
        return cls(weight, jnp.zeros(n_out))

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_out"]:
        return x @ self.weight + self.bias


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


StochasticLayer = GaussianLayer | BernoulliLayer
