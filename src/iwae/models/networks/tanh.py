"""The networks of Burda et al. (2015)."""

import itertools
from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.models.networks.base import Linear


class TanhNetwork(eqx.Module):
    """Linear layers, each followed by tanh; none at all is the identity. The networks of Burda et al. (2015)."""

    takes_batches: ClassVar[bool] = True
    hidden: tuple[Linear, ...]

    @classmethod
    def create(cls, sizes: Sequence[int], key: Key[Array, ""]) -> "TanhNetwork":
        """A network of `sizes[0]` inputs and `sizes[-1]` features."""
        pairs = itertools.pairwise(sizes)
        return cls(tuple(Linear.create(a, b, jax.random.fold_in(key, i)) for i, (a, b) in enumerate(pairs)))

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_features"]:
        for linear in self.hidden:
            x = jnp.tanh(linear(x))
        return x

    @property
    def widths(self) -> tuple[int, ...]:
        """Features after every layer."""
        return tuple(linear.bias.shape[0] for linear in self.hidden)
