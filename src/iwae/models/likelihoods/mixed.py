"""Tables whose columns are of several kinds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from iwae.errors import IWAEError
from iwae.models.distributions import Distribution
from iwae.models.likelihoods.base import Likelihood, has_missing
from iwae.models.likelihoods.exposure import ExposureLikelihood, Given


class Joined(eqx.Module):
    """Independent distributions of some columns each, which together are all units of the last axis."""

    parts: tuple[Distribution, ...]
    columns: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    @property
    def mean(self) -> Float[Array, "*shape units"]:
        return joined([part.mean for part in self.parts], self.columns)

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """Draws of every column by its own distribution."""
        draws = [part.sample(noise[..., own]) for part, own in self._parts()]
        return joined(draws, self.columns)

    def log_prob(self, value: Float[Array, "*more units"], observed: Array | None = None) -> Float[Array, "*result"]:
        """The sum of the columns' log densities and log probabilities in nats, or of those that `observed` has."""
        terms = [
            part.log_prob(value[..., own], None if observed is None else observed[..., own])
            for part, own in self._parts()
        ]
        return sum(terms[1:], terms[0])

    def _parts(self) -> Iterator[tuple[Distribution, np.ndarray]]:
        return ((part, np.array(own)) for part, own in zip(self.parts, self.columns, strict=True))


class MixedLikelihood(Likelihood):
    """A likelihood for each group of columns: `kinds[i]` has those in `columns[i]`.

    A figure in nats is then the sum of log densities, which depend on the columns' units, and of log probabilities.
    """

    name: ClassVar[str] = "mixed"
    words: ClassVar[str] = "mixed"
    columns: tuple[tuple[int, ...], ...] = eqx.field(static=True, default=())
    kinds: tuple[Likelihood, ...] = ()

    @classmethod
    def of_data(
        cls, rows: np.ndarray, *, scale: float = 1.0, binary: bool = False, levels: Sequence[int] = ()
    ) -> "MixedLikelihood":
        """Raises IWAEError: what the columns are, `of_kinds` has to be told."""
        raise IWAEError(
            "`likelihood` mixed needs a kind for each column: a list of names, such as gaussian, categorical"
        )

    @classmethod
    def of_kinds(
        cls, kinds: Sequence[type[Likelihood]], rows: np.ndarray, levels: Sequence[int] = ()
    ) -> "MixedLikelihood":
        """Of the kind of every column of the training rows `[n, dim]`; `levels` are those of the categorical ones, and
        any number for the others.
        """
        exposures = sum(kind is ExposureLikelihood for kind in kinds)
        if exposures > 1 or (exposures and not any(kind.has_rates for kind in kinds)):
            raise IWAEError("an exposure is one column beside columns of counts (poisson, negative-binomial, ...)")
        groups = {kind: tuple(j for j, own in enumerate(kinds) if own is kind) for kind in dict.fromkeys(kinds)}
        made = []
        for kind, columns in groups.items():
            own = rows[:, columns]
            is_binary = bool(np.isin(own[~np.isnan(own)], (0, 1)).all())
            made.append(kind.of_data(own, binary=is_binary, levels=[levels[j] for j in columns] if levels else ()))
        return cls(tuple(groups.values()), tuple(made), missing=has_missing(rows))

    @property
    def is_ordered(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return all(kind.is_ordered for kind in self.kinds)

    def each(self, name: str, units: int) -> np.ndarray:
        parts = [kind.each(name, len(own)) for kind, own in self._parts()]
        return np.concatenate(parts)[np.argsort(np.concatenate(self.columns))]

    def check(self, rows: np.ndarray, what: str) -> None:
        super().check(rows, what)
        for kind, own in self._parts():
            kind.check(rows[:, own], f"{what} (columns {', '.join(map(str, own))})")

    def of_column(self, place: int) -> Likelihood:
        kind, own = next((kind, own) for kind, own in self._parts() if place in own)
        return kind.of_column(own.tolist().index(place))

    def prepare(self, rows: Array, key: Key[Array, ""]) -> Float[Array, "*rows dim"]:
        parts = enumerate(self._parts())
        prepared = [kind.prepare(rows[..., own], jax.random.fold_in(key, i)) for i, (kind, own) in parts]
        return joined(prepared, self.columns)

    def original(self, values: Float[Array, "*rows dim"]) -> Float[Array, "*rows dim"]:
        return joined([kind.original(values[..., own]) for kind, own in self._parts()], self.columns)

    def num_outputs(self, units: int) -> int:
        return sum(kind.num_outputs(len(own)) for kind, own in self._parts())

    def num_units(self, outputs: int) -> int:
        return sum(map(len, self.columns))

    def num_inputs(self, units: int) -> int:
        return sum(kind.num_inputs(len(own)) for kind, own in self._parts())

    def inputs(self, x: Float[Array, "*rows dim"]) -> Float[Array, "*rows inputs"]:
        return jnp.concatenate([kind.inputs(x[..., own]) for kind, own in self._parts()], axis=-1)

    def averaged(self, given: Distribution) -> Float[Array, "*rows inputs"]:
        assert isinstance(given, Joined)
        pairs = zip(self.kinds, given.parts, strict=True)
        return jnp.concatenate([kind.averaged(part) for kind, part in pairs], axis=-1)

    def summary(self, averages: Float[Array, "*rows inputs"]) -> Float[Array, "*rows dim"]:
        parts = self._split(averages, [kind.num_inputs(len(own)) for kind, own in self._parts()])
        return joined([kind.summary(part) for kind, part in zip(self.kinds, parts, strict=True)], self.columns)

    def distribution(self, outputs: Float[Array, "*rows outputs"]) -> Joined:
        parts = self._split(outputs, [kind.num_outputs(len(own)) for kind, own in self._parts()])
        made = (kind.distribution(part) for kind, part in zip(self.kinds, parts, strict=True))
        return Joined(tuple(made), self.columns)

    def for_rows(self, given: Distribution, x: Float[Array, "*more dim"]) -> Distribution:
        """Counts by the rows' exposure, where they have one."""
        if self._exposure is None:
            return given
        assert isinstance(given, Joined)
        kind, own = self._exposure
        factor, parts = kind.log_factor(x[..., own]), []
        for other, part in zip(self.kinds, given.parts, strict=True):
            rates: Any = part
            if other is kind:
                part = Given(jnp.broadcast_to(x[..., own], part.mean.shape))
            parts.append(rates.scaled(factor) if other.has_rates else part)
        return Joined(tuple(parts), self.columns)

    @property
    def _exposure(self) -> tuple[ExposureLikelihood, np.ndarray] | None:
        pairs = zip(self.kinds, self.columns, strict=True)
        return next(((kind, np.array(own)) for kind, own in pairs if isinstance(kind, ExposureLikelihood)), None)

    def initial_bias(self, rows: np.ndarray) -> np.ndarray:
        """Those of the kinds, side by side; of counts, at the typical exposure."""
        biases, factor = [], 1.0
        if self._exposure is not None:
            exposure, place = self._exposure
            factor = exposure.typical / np.where(rows[:, place] > 0, rows[:, place], exposure.typical)
        for kind, own in self._parts():
            bias = kind.initial_bias(rows[:, own] * factor if kind.has_rates else rows[:, own])
            biases.append(np.zeros(kind.num_outputs(len(own))) if bias is None else bias)
        return np.concatenate(biases)

    def to_json(self) -> dict[str, Any]:
        kinds = [kind.to_json() for kind in self.kinds]
        return {"name": self.name, "columns": list(map(list, self.columns)), "kinds": kinds, "missing": self.missing}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "MixedLikelihood":
        from iwae.models.likelihoods import likelihood_from_json

        try:
            columns = tuple(tuple(map(int, own)) for own in fields["columns"])
            kinds = tuple(map(likelihood_from_json, fields["kinds"]))
            numbers = sorted(column for own in columns for column in own)
            if len(columns) != len(kinds) or not kinds or numbers != list(range(len(numbers))):
                raise IWAEError(f"its {len(kinds)} kinds do not share out the columns")
            if any(isinstance(kind, cls) for kind in kinds):
                raise IWAEError("a kind of it is mixed")
            return cls(columns, kinds, missing=bool(fields["missing"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IWAEError(f"not a mixed likelihood: {error}") from None

    def _parts(self) -> list[tuple[Likelihood, np.ndarray]]:
        """Every kind, which knows whether values may be missing, and its columns."""
        kinds = (replace(kind, missing=self.missing) for kind in self.kinds)
        return [(kind, np.array(own)) for kind, own in zip(kinds, self.columns, strict=True)]

    @staticmethod
    def _split(values: Array, counts: Sequence[int]) -> list[Array]:
        return jnp.split(values, np.cumsum(counts)[:-1].tolist(), axis=-1)


def joined(parts: Sequence[Array], columns: Sequence[Sequence[int]]) -> Float[Array, "*rows dim"]:
    """What groups of columns have, in the order of the columns."""
    order = np.argsort(np.concatenate([np.array(own) for own in columns]))
    return jnp.concatenate(parts, axis=-1)[..., order]
