"""What a likelihood owns, and the visible layer, which puts it on a network."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from iwae.errors import IWAEError
from iwae.models.distributions import Distribution
from iwae.models.networks.base import Linear, MakeNetwork, Network, count_features, features
from iwae.models.networks.tanh import TanhNetwork


class Likelihood(eqx.Module):
    """A kind of visible data: how stored rows become what is scored, and p(x | h) from a network's outputs.

    A new kind subclasses this and gives `distribution`; the rest has defaults. Its fields are static plain values, so
    that they can be recorded, are compiled in, and are never trained.

    This class itself stands for a visible layer of another class, whose rows are scored as they are.

    `missing` says that rows may hold NaN where a value is missing: what is missing is not scored, and the encoder
    sees a zero there.
    """

    name: ClassVar[str] = "custom"
    words: ClassVar[str] = "custom"
    """For tables and pages."""
    outputs_per_unit: ClassVar[int] = 1
    """Numbers that the network gives for each visible unit; those of one kind lie side by side."""
    is_ordered: ClassVar[bool] = True
    """Whether larger and smaller values mean something."""
    is_given: ClassVar[bool] = False
    """Whether its values are always there and not scored."""
    has_rates: ClassVar[bool] = False
    """Whether its distributions are of counts, whose method `scaled` multiplies their rates by an exposure."""
    missing: bool = eqx.field(static=True, default=False, kw_only=True)

    @classmethod
    def of_data(
        cls, rows: np.ndarray, *, scale: float = 1.0, binary: bool = False, levels: Sequence[int] = ()
    ) -> "Likelihood":
        """The likelihood for training rows `[n, dim]` as they are stored: `rows * scale` are values, and with `binary`
        all of them are zeros and ones; `levels` says of every column how many values it may have.
        """
        return cls(missing=has_missing(rows))

    def each(self, name: str, units: int) -> np.ndarray:
        """What the kind of each of so many columns says: its `is_ordered`, `is_given` or `has_rates`."""
        return np.full(units, getattr(self, name))

    def check(self, rows: np.ndarray, what: str) -> None:
        """Raises IWAEError, naming `what`, for rows that can't be scored."""
        if rows.dtype.kind not in "buif":
            raise IWAEError(f"the {what} is of type {rows.dtype}, expected real numbers")
        # An infinite number is not a missing one.
        if rows.dtype.kind == "f" and (np.isinf(rows).any() or (has_missing(rows) and not self.missing)):
            raise IWAEError(
                f"{what} has values that are NaN or infinite: expected finite numbers, and NaN, a missing value, only"
                " where the model was made for data that have such"
            )

    def of_column(self, place: int) -> "Likelihood":
        """The likelihood whose `check` is that of one column alone."""
        return self

    def prepare(self, rows: Array, key: Key[Array, ""]) -> Float[Array, "*rows dim"]:
        """Stored rows as they are scored, float32; `key` serves likelihoods that draw something at every use."""
        return rows.astype(jnp.float32)

    def original(self, values: Float[Array, "*rows dim"]) -> Float[Array, "*rows dim"]:
        """Inverse of `prepare` for means and draws, in the units of the rows."""
        return values

    def num_outputs(self, units: int) -> int:
        """Numbers that the network gives for so many visible units."""
        return self.outputs_per_unit * units

    def num_units(self, outputs: int) -> int:
        """Inverse of `num_outputs`."""
        return outputs // self.outputs_per_unit

    def num_inputs(self, units: int) -> int:
        """Numbers that the encoder sees of so many visible units."""
        return units

    def inputs(self, x: Float[Array, "*rows dim"]) -> Float[Array, "*rows inputs"]:
        """What the encoder sees of prepared rows, `num_inputs` numbers."""
        return x

    def averaged(self, given: Distribution) -> Float[Array, "*rows inputs"]:
        """What is averaged over h to say what a value is, `num_inputs` numbers: means, in the units of the rows."""
        return self.original(given.mean)

    def summary(self, averages: Float[Array, "*rows inputs"]) -> Float[Array, "*rows dim"]:
        """The values, in the units of the rows, that stand for averages."""
        return averages

    def distribution(self, outputs: Float[Array, "*rows outputs"]) -> Distribution:
        """p(x | h) for a network's outputs, `outputs_per_unit` times the number of visible units."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `distribution`")

    def for_rows(self, given: Distribution, x: Float[Array, "*more dim"]) -> Distribution:
        """p(x | h) of prepared rows that have something of their own, such as an exposure; by default as `given`."""
        return given

    def log_prob(
        self, found: Float[Array, "*rows n"], outputs: Any, value: Float[Array, "*more dim"], observed: Array | None
    ) -> Float[Array, "*rows"]:
        """log p(value | h) in nats, summed over the units that are `observed`, for a network's features `found`."""
        distribution = self.for_rows(self.distribution(outputs(found)), value)
        return distribution.log_prob(value) if observed is None else distribution.log_prob(value, observed)

    def initial_bias(self, rows: np.ndarray) -> np.ndarray | None:
        """The bias of the outputs before training, from the training rows as they are stored; None: zeros."""
        return None

    def to_json(self) -> dict[str, Any]:
        """Its name and fields, which `likelihood_from_json` reads."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"name": self.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Likelihood":
        """Inverse of `to_json`, without the name. Raises IWAEError for other fields."""
        try:
            plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
            return cls(**plain)
        except (TypeError, ValueError) as error:
            raise IWAEError(f"not a {cls.name} likelihood: {error}") from None


def has_missing(rows: np.ndarray) -> bool:
    """Whether any value is NaN."""
    return rows.dtype.kind == "f" and bool(np.isnan(rows).any())


def seen(rows: np.ndarray) -> np.ndarray:
    """The values that are there, in one row."""
    return rows[~np.isnan(rows)] if rows.dtype.kind == "f" else rows


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of every column of `[n, dim]`, of the values that are there; zero where none is."""
    is_seen = ~np.isnan(values)
    count = np.maximum(is_seen.sum(axis=0), 1)
    mean = np.where(is_seen, values, 0.0).sum(axis=0) / count
    return mean, np.where(is_seen, (values - mean) ** 2, 0.0).sum(axis=0) / count


class VisibleLayer(eqx.Module):
    """p(x | h): a likelihood whose parameters are linear in the features of a network. `outputs` is a linear layer, or
    what a network makes in its place (`make_outputs`), with a `bias` too.
    """

    network: Network
    outputs: Any
    likelihood: Likelihood

    @classmethod
    def create(
        cls,
        n_in: int,
        hidden: Sequence[int],
        dim: int,
        key: Key[Array, ""],
        likelihood: Likelihood,
        network: MakeNetwork = TanhNetwork.create,
    ) -> "VisibleLayer":
        """The paper's layer, on a tanh network; every linear layer is drawn independently.

        Raises IWAEError for a likelihood that the network can't give the parameters of.
        """
        keys = jax.random.split(key)
        made, count = network((n_in, *hidden), keys[0]), likelihood.num_outputs(dim)
        if not hasattr(made, "make_outputs"):
            return cls(made, Linear.create(count_features(made, n_in), count, keys[1]), likelihood)
        if count != likelihood.outputs_per_unit * dim:
            raise IWAEError(
                f"a convolutional network gives as many numbers for each value, and the {likelihood.words} likelihood"
                " takes others: use another `network`"
            )
        return cls(made, made.make_outputs(count, keys[1]), likelihood)

    @classmethod
    def on(
        cls, network: Network, dim: int, *, inputs: int, key: Key[Array, ""], likelihood: Likelihood
    ) -> "VisibleLayer":
        """A layer of `dim` visible units on any network that takes `inputs` numbers. Raises as `count_features`."""
        count = count_features(network, inputs)
        return cls(network, Linear.create(count, likelihood.num_outputs(dim), key), likelihood)

    @property
    def units(self) -> int:
        """Number of visible units."""
        return self.likelihood.num_units(self.outputs.bias.shape[-1])

    @property
    def heads(self) -> tuple[Linear, ...]:
        """The linear layer on the features."""
        return (self.outputs,)

    def with_heads(self, heads: Sequence[Linear]) -> "VisibleLayer":
        """The same layer with other `heads`."""
        return replace(self, outputs=heads[0])

    def with_bias(self, bias: np.ndarray | None) -> "VisibleLayer":
        """The same layer with another bias of the outputs; None leaves it."""
        if bias is None:
            return self
        return replace(self, outputs=replace(self.outputs, bias=jnp.asarray(bias, jnp.float32)))

    def __call__(self, given: Float[Array, "*rows n_in"]) -> Distribution:
        return self.likelihood.distribution(self.outputs(features(self.network, given)))

    def log_prob(self, value: Float[Array, "*more dim"], given: Float[Array, "*rows n_in"]) -> Float[Array, "*result"]:
        """log p(value | given) in nats, summed over units; where the likelihood has missing values, over those that
        are not NaN.
        """
        observed = None
        if self.likelihood.missing:
            observed = ~jnp.isnan(value)
            value = jnp.where(observed, value, 0.0)
        return self.likelihood.log_prob(features(self.network, given), self.outputs, value, observed)
