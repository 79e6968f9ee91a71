"""Gaussian posteriors with correlations."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.models.distributions import HALF_LOG_TWO_PI
from iwae.models.layers import GaussianLayer
from iwae.models.networks.base import Linear, Network, features


class FullNormal(eqx.Module):
    """A Gaussian over the last axis, N(mean, L L^T) with L = diag(exp(log_scale)) (I + B): `below` are the entries of
    the strictly lower triangular B, row by row.
    """

    mean: Float[Array, "*shape units"]
    log_scale: Float[Array, "*shape units"]
    below: Float[Array, "*shape pairs"]

    @property
    def log_sigma(self) -> Float[Array, "*shape units"]:
        """Logs of the units' own standard deviations."""
        return self.log_scale + 0.5 * jnp.log1p(jnp.sum(jnp.square(self._mixing()), axis=-1))

    def _mixing(self) -> Float[Array, "*shape units units"]:
        units = self.mean.shape[-1]
        rows, columns = jnp.tril_indices(units, -1)
        empty = jnp.zeros((*self.below.shape[:-1], units, units), self.below.dtype)
        return empty.at[..., rows, columns].set(self.below)

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """mean + L noise, for standard normal `noise`: the reparameterized draw."""
        mixed = jnp.einsum("...ij,...j->...i", self._mixing(), noise, precision=jax.lax.Precision.HIGHEST)
        return self.mean + jnp.exp(self.log_scale) * (noise + mixed)

    def log_prob(self, value: Float[Array, "*more units"]) -> Float[Array, "*result"]:
        """Log density in nats, summed over units."""
        scaled = (value - self.mean) * jnp.exp(-self.log_scale)
        noise = _solve(self._mixing(), scaled)
        return (
            -0.5 * jnp.sum(jnp.square(noise), axis=-1)
            - jnp.sum(self.log_scale, axis=-1)
            - HALF_LOG_TWO_PI * value.shape[-1]
        )

    def at(self, index: Array) -> "FullNormal":
        """The distributions of those rows."""
        return jax.tree.map(lambda leaf: leaf[index], self)


def _solve(mixing: Float[Array, "*rows n n"], values: Float[Array, "*more n"]) -> Float[Array, "*more n"]:
    """(I + mixing)^-1 values. Axes that only the values have are columns of one system."""
    n, rows = mixing.shape[-1], mixing.shape[:-2]
    extra = values.ndim - 1 - len(rows)
    values = jnp.broadcast_to(values, (*values.shape[:extra], *rows, n))
    columns = jnp.moveaxis(values.reshape(-1, *rows, n), 0, -1)
    found = jax.lax.linalg.triangular_solve(mixing, columns, left_side=True, lower=True, unit_diagonal=True)
    return jnp.moveaxis(found, -1, 0).reshape(values.shape)


class FullCovarianceLayer(GaussianLayer):
    """A Gaussian whose mean, log scales and mixing of units are linear in the features of a network (Rezende, Mohamed &
    Wierstra 2014, section 4.3); see `FullNormal`. It has no correlations at first.
    """

    below: Linear

    @classmethod
    def _with_heads(cls, network: Network, count: int, units: int, keys: Key[Array, " two"]) -> "FullCovarianceLayer":
        pairs = units * (units - 1) // 2
        below = Linear(jnp.zeros((count, pairs)), jnp.zeros(pairs))
        return cls(network, Linear.create(count, units, keys[0]), Linear.create(count, units, keys[1]), below)

    @property
    def heads(self) -> tuple[Linear, ...]:
        """The linear layers on the features."""
        return (self.mean, self.log_sigma, self.below)

    def with_heads(self, heads: Sequence[Linear]) -> "FullCovarianceLayer":
        """The same layer with other `heads`."""
        return FullCovarianceLayer(self.network, *heads)

    def __call__(self, given: Float[Array, "*rows n_in"]) -> FullNormal:  # pyright: ignore[reportIncompatibleMethodOverride]
        found = features(self.network, given)
        return FullNormal(self.mean(found), self.log_sigma(found), self.below(found))
