"""Categories: one of a fixed number of levels a column, without an order."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float

from iwae.errors import IWAEError
from iwae.models.distributions import Distribution, total
from iwae.models.likelihoods.base import Likelihood, has_missing

# The logit of a level that a column does not have.
NEVER = -1e30


class Categorical(eqx.Module):
    """Independent categories over the last axis of units, by the logarithms of their probabilities; columns with fewer
    levels than the largest are filled up with impossible ones.
    """

    log_shares: Float[Array, "*shape units levels"]
    levels: tuple[int, ...] = eqx.field(static=True)

    @property
    def mean(self) -> Float[Array, "*shape units"]:
        """The most probable level: levels have no mean."""
        return jnp.argmax(self.log_shares, axis=-1).astype(self.log_shares.dtype)

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """The level in whose share of [0, 1] Phi(noise) lies, for standard normal `noise`."""
        below = jnp.cumsum(jnp.exp(self.log_shares), axis=-1) < ndtr(noise)[..., None]
        # Rounding may leave the last share short of one.
        return jnp.minimum(jnp.sum(below, axis=-1), np.array(self.levels) - 1).astype(noise.dtype)

    def log_prob(self, value: Float[Array, "*more units"], observed: Array | None = None) -> Float[Array, "*result"]:
        """Log probability of levels, counted from 0, in nats, summed over units, or over those that `observed` has."""
        chosen = value[..., None] == jnp.arange(self.log_shares.shape[-1])
        return total(jnp.sum(jnp.where(chosen, self.log_shares, 0.0), axis=-1), observed)


class CategoricalLikelihood(Likelihood):
    """Independent categories whose logits come from the network.

    Rows hold the numbers of levels, from 0; column j has `levels[j]` of them. The encoder sees an indicator of each
    level. Averages are probabilities, and what stands for them is the most probable level.
    """

    name: ClassVar[str] = "categorical"
    words: ClassVar[str] = "categorical"
    is_ordered: ClassVar[bool] = False
    levels: tuple[int, ...] = eqx.field(static=True, default=())

    @classmethod
    def of_data(
        cls, rows: np.ndarray, *, scale: float = 1.0, binary: bool = False, levels: Sequence[int] = ()
    ) -> "CategoricalLikelihood":
        """Without `levels`, as many as the largest number in a column says."""
        seen = np.nan_to_num(np.asarray(rows, np.float64)).max(axis=0, initial=0)
        return cls(tuple(levels) or tuple((seen + 1).astype(int).tolist()), missing=has_missing(rows))

    def check(self, rows: np.ndarray, what: str) -> None:
        super().check(rows, what)
        levels = np.array(self.levels)
        wrong = ~np.isnan(rows) & ~((rows >= 0) & (rows < levels) & (rows == np.floor(rows)))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            where = f" in column {column}" if len(self.levels) > 1 else ""
            raise IWAEError(
                f"the {what} has {rows[row, column]:g}{where}, whose levels are 0 to {levels[column] - 1}: a level"
                " must be in the training rows"
            )

    def of_column(self, place: int) -> "CategoricalLikelihood":
        return replace(self, levels=(self.levels[place],))

    def num_outputs(self, units: int) -> int:
        return sum(self.levels)

    def num_units(self, outputs: int) -> int:
        return len(self.levels)

    def num_inputs(self, units: int) -> int:
        return sum(self.levels)

    def inputs(self, x: Float[Array, "*rows dim"]) -> Float[Array, "*rows inputs"]:
        """Ones and zeros: all zeros where a value is missing."""
        unit, level = self._places()
        return (x[..., unit] == level).astype(x.dtype)

    def averaged(self, given: Distribution) -> Float[Array, "*rows inputs"]:
        """The probability of each level."""
        assert isinstance(given, Categorical)
        unit, level = self._places()
        return jnp.exp(given.log_shares)[..., unit, level]

    def summary(self, averages: Float[Array, "*rows inputs"]) -> Float[Array, "*rows dim"]:
        return self._padded(averages).argmax(axis=-1).astype(averages.dtype)

    def distribution(self, outputs: Float[Array, "*rows outputs"]) -> Categorical:
        return Categorical(jax.nn.log_softmax(self._padded(outputs), axis=-1), self.levels)

    def initial_bias(self, rows: np.ndarray) -> np.ndarray:
        """The logarithms of the training shares, one example added to each level."""
        counts = [np.sum(rows[:, unit] == level) + 1.0 for unit, level in zip(*self._places(), strict=True)]
        return np.log(counts)

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """The unit and the level of every output."""
        units = np.repeat(np.arange(len(self.levels)), self.levels)
        return units, np.concatenate([np.arange(count) for count in self.levels])

    def _padded(self, values: Float[Array, "*rows outputs"]) -> Float[Array, "*rows units levels"]:
        levels, largest = np.array(self.levels), np.arange(max(self.levels))
        places = (np.cumsum(levels) - levels)[:, None] + np.minimum(largest, levels[:, None] - 1)
        return jnp.where(largest < levels[:, None], values[..., places], NEVER)
