"""Networks with skip connections."""

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.models.networks.base import Linear, Nonlinearity, Options


class Block(eqx.Module):
    """skip(x) + second(after(first(before(x)))), with the nonlinearities before the linear layers (He et al. 2016,
    "Identity mappings in deep residual networks"). `skip` is linear where the width changes. The second layer is zero
    at first, and the block its skip connection (Goyal et al. 2017).
    """

    before: Nonlinearity
    first: Linear
    after: Nonlinearity
    second: Linear
    skip: Linear | None

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_out"]:
        change = self.second(self.after(self.first(self.before(x))))
        return change + (x if self.skip is None else self.skip(x))


class ResidualNetwork(eqx.Module):
    """A linear layer to the first width, a residual `Block` of every width, and a nonlinearity; no width at all is the
    identity.
    """

    takes_batches: ClassVar[bool] = True
    stem: Linear | None
    blocks: tuple[Block, ...]
    last: Nonlinearity | None

    @classmethod
    def create(cls, sizes: Sequence[int], key: Key[Array, ""], **options: Unpack[Options]) -> "ResidualNetwork":
        """A network of `sizes[0]` inputs and `sizes[-1]` features; `options` are those of `Nonlinearity`, of which
        dropout comes once in a block.
        """
        if len(sizes) == 1:
            return cls(None, (), None)

        def nonlinearity(width: int, dropout: float = 0.0) -> Nonlinearity:
            return Nonlinearity.create(width, **{**options, "dropout": dropout})

        def block(n_in: int, n_out: int, key: Key[Array, ""]) -> Block:
            first, skip = jax.random.split(key)
            return Block(
                nonlinearity(n_in),
                Linear.create(n_in, n_out, first),
                nonlinearity(n_out, options.get("dropout", 0.0)),
                Linear(jnp.zeros((n_out, n_out)), jnp.zeros(n_out)),
                None if n_in == n_out else Linear.create(n_in, n_out, skip),
            )

        widths = itertools.pairwise((sizes[1], *sizes[1:]))
        blocks = tuple(block(a, b, jax.random.fold_in(key, i)) for i, (a, b) in enumerate(widths, 1))
        return cls(Linear.create(sizes[0], sizes[1], jax.random.fold_in(key, 0)), blocks, nonlinearity(sizes[-1]))

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_features"]:
        if self.stem is None or self.last is None:
            return x
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)

    @property
    def widths(self) -> tuple[int, ...]:
        """Features after every block."""
        return tuple(block.second.bias.shape[0] for block in self.blocks)

    @property
    def settings(self) -> dict[str, Any]:
        """The options that it was made with."""
        return self.blocks[0].after.settings if self.blocks else {}
