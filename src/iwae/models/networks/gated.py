"""The networks of Tomczak & Welling (2018)."""

import itertools
from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from iwae.models.networks.base import Linear


class GatedNetwork(eqx.Module):
    """Gated linear layers, (A x + b) * sigmoid(C x + d) each (Dauphin et al. 2017; Tomczak & Welling 2018, "VAE with a
    VampPrior"); none at all is the identity.
    """

    takes_batches: ClassVar[bool] = True
    values: tuple[Linear, ...]
    gates: tuple[Linear, ...]

    @classmethod
    def create(cls, sizes: Sequence[int], key: Key[Array, ""]) -> "GatedNetwork":
        """A network of `sizes[0]` inputs and `sizes[-1]` features."""
        pairs = list(itertools.pairwise(sizes))
        of_values, of_gates = (
            tuple(Linear.create(a, b, jax.random.fold_in(own, i)) for i, (a, b) in enumerate(pairs))
            for own in jax.random.split(key)
        )
        return cls(of_values, of_gates)

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_features"]:
        for value, gate in zip(self.values, self.gates, strict=True):
            x = value(x) * jax.nn.sigmoid(gate(x))
        return x

    @property
    def widths(self) -> tuple[int, ...]:
        """Features after every layer."""
        return tuple(linear.bias.shape[0] for linear in self.values)
