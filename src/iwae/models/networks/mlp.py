"""Networks of linear layers with any activation."""

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from iwae.models.networks.base import Linear, Nonlinearity, Options


class MLP(eqx.Module):
    """Linear layers, each followed by layer norm, an activation and dropout (see `Nonlinearity`); none at all is the
    identity.
    """

    takes_batches: ClassVar[bool] = True
    linear: tuple[Linear, ...]
    after: tuple[Nonlinearity, ...]

    @classmethod
    def create(cls, sizes: Sequence[int], key: Key[Array, ""], **options: Unpack[Options]) -> "MLP":
        """A network of `sizes[0]` inputs and `sizes[-1]` features; `options` are those of `Nonlinearity`."""
        pairs = list(itertools.pairwise(sizes))
        linear = tuple(Linear.create(a, b, jax.random.fold_in(key, i)) for i, (a, b) in enumerate(pairs))
        return cls(linear, tuple(Nonlinearity.create(b, **options) for _, b in pairs))

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_features"]:
        for linear, after in zip(self.linear, self.after, strict=True):
            x = after(linear(x))
        return x

    @property
    def widths(self) -> tuple[int, ...]:
        """Features after every layer."""
        return tuple(linear.bias.shape[0] for linear in self.linear)

    @property
    def settings(self) -> dict[str, Any]:
        """The options that it was made with."""
        return self.after[0].settings if self.after else {}
