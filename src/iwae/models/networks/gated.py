"""The networks of Tomczak & Welling (2018)."""

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from iwae.models.networks.base import Linear, Nonlinearity


class GatedNetwork(eqx.Module):
    """Gated linear layers, (A x + b) * sigmoid(C x + d) each (Dauphin et al. 2017; Tomczak & Welling 2018, "VAE with a
    VampPrior"), followed by layer norm and dropout where they are asked for; none at all is the identity.
    """

    takes_batches: ClassVar[bool] = True
    values: tuple[Linear, ...]
    gates: tuple[Linear, ...]
    after: tuple[Nonlinearity, ...]

    @classmethod
    def create(
        cls, sizes: Sequence[int], key: Key[Array, ""], *, dropout: float = 0.0, layer_norm: bool = False
    ) -> "GatedNetwork":
        """A network of `sizes[0]` inputs and `sizes[-1]` features."""
        pairs = list(itertools.pairwise(sizes))
        of_values, of_gates = (
            tuple(Linear.create(a, b, jax.random.fold_in(own, i)) for i, (a, b) in enumerate(pairs))
            for own in jax.random.split(key)
        )
        return cls(of_values, of_gates, tuple(Nonlinearity.create(b, None, dropout, layer_norm) for _, b in pairs))

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_features"]:
        for value, gate, after in zip(self.values, self.gates, self.after, strict=True):
            x = after(value(x) * jax.nn.sigmoid(gate(x)))
        return x

    @property
    def widths(self) -> tuple[int, ...]:
        """Features after every layer."""
        return tuple(linear.bias.shape[0] for linear in self.values)

    @property
    def settings(self) -> dict[str, Any]:
        """The options that it was made with."""
        return self.after[0].settings if self.after else {}
