"""Normalizing flows of affine coupling layers: exact both ways, at one pass through their networks each."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.models.networks.base import Linear

LARGEST_LOG_SCALE = 3.0
"""Of one coupling layer: a bound on what can be done to the density in a step of training."""

Halves = tuple[Array, Array]


class Coupling(eqx.Module):
    """An affine coupling layer (Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP", equations 4
    and 5): one half of the units stays and gives, through one hidden layer, a scale and a shift of every unit of the
    other. Where there is a context, it is given to the hidden layer too.
    """

    inner: Linear
    context: Linear | None
    outer: Linear

    @classmethod
    def create(cls, stays: int, moves: int, hidden: int, context: int | None, key: Key[Array, ""]) -> "Coupling":
        """The identity at first."""
        keys = jax.random.split(key)
        of_context = None if context is None else Linear.create(context, hidden, keys[1])
        outer = Linear(jnp.zeros((hidden, 2 * moves)), jnp.zeros(2 * moves))
        return cls(Linear.create(stays, hidden, keys[0]), of_context, outer)

    def __call__(self, stays: Float[Array, "*rows half"], context: Array | None) -> Halves:
        """The log scale and the shift."""
        inner = self.inner(stays)
        inner = inner if self.context is None or context is None else inner + self.context(context)
        raw, shift = jnp.split(self.outer(jax.nn.silu(inner)), 2, axis=-1)
        return LARGEST_LOG_SCALE * jnp.tanh(raw / LARGEST_LOG_SCALE), shift


class Flow(eqx.Module):
    """Coupling layers which move the two halves of the units in turn, the second half first."""

    layers: tuple[Coupling, ...]

    @classmethod
    def create(
        cls, units: int, num_layers: int, hidden: int, key: Key[Array, ""], context: int | None = None
    ) -> "Flow":
        """The identity at first. `context` is how many numbers it is given beside the units, None for no context."""
        first = units - units // 2
        sizes = ((first, units - first), (units - first, first))
        keys = jax.random.split(key, num_layers)
        return cls(tuple(Coupling.create(*sizes[i % 2], hidden, context, own) for i, own in enumerate(keys)))

    def forward(self, z: Float[Array, "*rows units"], context: Array | None = None) -> Float[Array, "*shape units"]:
        """h = f(z)."""
        halves = self._halves(z)
        for i, layer in enumerate(self.layers):
            stays, moves = _turned(halves, i)
            log_scale, shift = layer(stays, context)
            halves = _turned((stays, moves * jnp.exp(log_scale) + shift), i)
        return _joined(halves)

    def inverse(
        self, h: Float[Array, "*rows units"], context: Array | None = None
    ) -> tuple[Float[Array, "*shape units"], Float[Array, "*shape"]]:
        """z = f^-1(h), and log |det dz/dh|."""
        halves, total = self._halves(h), jnp.zeros((), h.dtype)
        for i, layer in reversed(list(enumerate(self.layers))):
            stays, moves = _turned(halves, i)
            log_scale, shift = layer(stays, context)
            halves = _turned((stays, (moves - shift) * jnp.exp(-log_scale)), i)
            total = total - jnp.sum(log_scale, axis=-1)
        return _joined(halves), total

    def _halves(self, values: Array) -> Halves:
        first, second = jnp.split(values, [values.shape[-1] - values.shape[-1] // 2], axis=-1)
        return first, second

    @property
    def settings(self) -> dict[str, Any]:
        """The options of `Architecture` that it was made with."""
        return {"flow_layers": len(self.layers), "flow_hidden": self.layers[0].inner.bias.shape[0]}


def _turned(halves: Halves, number: int) -> Halves:
    """The half that a layer leaves and the half that it moves, and back."""
    return halves if number % 2 == 0 else (halves[1], halves[0])


def _joined(halves: Sequence[Array]) -> Array:
    rows = jnp.broadcast_shapes(*(half.shape[:-1] for half in halves))
    return jnp.concatenate([jnp.broadcast_to(half, (*rows, half.shape[-1])) for half in halves], axis=-1)
