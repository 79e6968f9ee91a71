"""What counts are in proportion to: a column that is given, not scored."""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from iwae.errors import IWAEError
from iwae.models.likelihoods.base import Likelihood


class Given(eqx.Module):
    """Values over the last axis that are what they are: nothing is drawn, and their log probability is zero."""

    value: Float[Array, "*shape units"]

    @property
    def mean(self) -> Float[Array, "*shape units"]:
        return self.value

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """The values, as many as there is `noise` for."""
        return jnp.broadcast_to(self.value, jnp.broadcast_shapes(self.value.shape, noise.shape))

    def log_prob(self, value: Float[Array, "*more units"], observed: Array | None = None) -> Float[Array, "*result"]:
        """Zero."""
        return jnp.zeros(jnp.broadcast_shapes(self.value.shape, value.shape)[:-1], value.dtype)


class ExposureLikelihood(Likelihood):
    """A column of positive numbers that the rates of a row's counts are in proportion to, such as a time, an area, or a
    cell's number of molecules (its library size; Lopez et al. 2018): their log means are those from the network plus
    log(exposure / typical).

    `typical` is the geometric mean of the training rows: draws without a row are made for it. The encoder sees
    log(exposure / typical). Densities are those of the other columns, given this one.
    """

    name: ClassVar[str] = "exposure"
    words: ClassVar[str] = "exposure"
    outputs_per_unit: ClassVar[int] = 0
    is_given: ClassVar[bool] = True
    typical: float = eqx.field(static=True, default=1.0)

    @classmethod
    def of_data(
        cls, rows: np.ndarray, *, scale: float = 1.0, binary: bool = False, levels: Sequence[int] = ()
    ) -> "ExposureLikelihood":
        positive = np.asarray(rows, np.float64)[rows > 0]
        return cls(float(np.exp(np.log(positive).mean())) if positive.size else 1.0)

    def check(self, rows: np.ndarray, what: str) -> None:
        super().check(rows, what)
        if not (rows > 0).all():
            raise IWAEError(f"the {what} has exposures that are no positive numbers: leave these rows out")

    def inputs(self, x: Float[Array, "*rows dim"]) -> Float[Array, "*rows inputs"]:
        return self.log_factor(x)

    def log_factor(self, x: Float[Array, "*rows dim"]) -> Float[Array, "*rows dim"]:
        """log(exposure / typical)."""
        return jnp.log(x / self.typical)

    def distribution(self, outputs: Float[Array, "*rows outputs"]) -> Given:
        return Given(jnp.full((*outputs.shape[:-1], 1), self.typical, outputs.dtype))
