"""What is maximized, with how many samples, and by which estimator of its gradient: an entry of the table.

No JAX is imported here: an estimator's module is, when one is made.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from iwae.errors import IWAEError, check_count
from iwae.estimators.parameters import M, Number, Parameter, exact_number
from iwae.estimators.table import ALIASES, BY_SCORE, OBJECTIVES, ONE_BINARY_LAYER, Row

if TYPE_CHECKING:
    from iwae.estimators.base import Estimator
    from iwae.models.architecture import Precision


def all_parameters() -> dict[str, list[Parameter]]:
    """Every parameter of the table by name, with its owners' versions of it."""
    found: dict[str, list[Parameter]] = {}
    for row in OBJECTIVES.values():
        for parameter in (*row.parameters, *(p for method in row.methods.values() for p in method.parameters)):
            if parameter not in found.setdefault(parameter.name, []):
                found[parameter.name].append(parameter)
    return found


def all_methods() -> list[str]:
    """Names of the estimators, in the table's order."""
    return list(dict.fromkeys(name for row in OBJECTIVES.values() for name in row.methods))


class Objective:
    """What is maximized, with k samples, and the estimator of its gradient (by default the objective's first).

    `parameters` are those of the table's row and the method, by name; one that is left out takes its default. They are
    attributes too. `backward` is how many of the samples go through the backward pass, all of them where it is None.
    """

    name: str
    k: int
    estimator: str
    backward: int | None
    parameters: Mapping[str, Number]

    def __init__(
        self,
        name: str,
        k: int = 1,
        *,
        estimator: str | None = None,
        backward: int | None = None,
        parameters: Mapping[str, Number | None] | None = None,
        **given: Number | None,
    ):
        """Raises IWAEError for names that are unknown and for combinations that have no meaning, saying which do."""
        name = ALIASES.get(name, name)
        if name not in OBJECTIVES:
            raise IWAEError(f"`objective` must be one of {', '.join(OBJECTIVES)}, got {name!r}")
        row = OBJECTIVES[name]
        estimator = next(iter(row.methods)) if estimator is None else estimator
        if estimator not in all_methods():
            raise IWAEError(f"`estimator` must be one of {', '.join(all_methods())}, got {estimator!r}")
        if estimator not in row.methods:
            partners = ", ".join(other for other, known in OBJECTIVES.items() if estimator in known.methods)
            raise IWAEError(
                f"`estimator` {estimator} does not go with `objective` {name}, which has {', '.join(row.methods)};"
                f" {estimator} goes with {partners}"
            )
        settings = {key: value for key, value in {**(parameters or {}), **given}.items() if value is not None}
        own = {p.name: p for p in (*row.parameters, *row.methods[estimator].parameters)}
        for key, value in settings.items():
            if key not in own:
                raise IWAEError(f"`{key}` {value} {_owners(key)}, not with {_described(name, estimator)}")
        values: dict[str, Number] = {}
        for parameter in own.values():
            value = settings.get(parameter.name, parameter.default)
            if value is None:
                raise IWAEError(f"`objective` {name} needs `{parameter.name}`")
            values[parameter.name] = parameter.checked(value)
        # Wake-sleep without wake-phi compares nothing.
        least = 1 if values.get("sleep") == 1.0 else max(row.least_samples, row.methods[estimator].least_samples)
        check_count("k", k, least, f" for {_described(name, estimator)}" if least > 1 else "")
        self.__dict__.update(name=name, k=int(k), estimator=estimator, backward=None, parameters=values)
        if backward is not None:
            check_count("backward", backward)
            if row.methods[estimator].module == "terms":
                raise IWAEError(f"`backward` does not go with `objective` {name}: all of its samples count alike")
            if backward > self.num_samples:
                raise IWAEError(f"`backward` must be at most the {self.num_samples} samples drawn, got {backward}")
            self.__dict__["backward"] = int(backward)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"an objective does not change: `{name}` is set when it is made, or by `changed`")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self.__dict__.get("parameters", {}):
            raise AttributeError(name)
        return self.parameters[name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Objective) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((self.name, self.k, self.estimator, self.backward, *self.parameters.items()))

    def __repr__(self) -> str:
        settings = {**self.parameters, "backward": self.backward}
        given = "".join(f", {name}={value!r}" for name, value in settings.items() if value is not None)
        return f"Objective({self.name!r}, k={self.k}, estimator={self.estimator!r}{given})"

    def changed(self, **changes: Any) -> "Objective":
        """The same objective but for `changes`, which are named as when one is made."""
        return Objective(**{**self.__dict__, **changes})

    @property
    def row(self) -> Row:
        """Its row of the table."""
        return OBJECTIVES[self.name]

    @property
    def num_samples(self) -> int:
        """Samples drawn per example: k, in each of the m groups."""
        return self.k * int(self.parameters.get("m", 1))

    @property
    def needs_gaussian_latents(self) -> bool:
        """Whether the estimator differentiates through the samples, which binary ones do not allow."""
        return self.estimator not in BY_SCORE

    def check_latents(self, kinds: Sequence[str]) -> None:
        """Raises IWAEError where its estimator is not for stochastic layers of these `kinds`."""
        if "bernoulli" in kinds and self.needs_gaussian_latents:
            raise IWAEError(
                f"`latent_kind` bernoulli has no derivative through its samples, which `objective` {self.name}"
                f" `estimator` {self.estimator} needs: use `objective` vimco, ovis or rws, or `estimator` score or,"
                " for one layer, disarm"
            )
        if self.estimator in ONE_BINARY_LAYER and list(kinds) != ["bernoulli"]:
            raise IWAEError(
                f"`estimator` {self.estimator} needs one layer of binary latents: give `latent_kind` bernoulli and"
                " one number of units for `latent`, or another estimator"
            )

    @property
    def has_default_estimator(self) -> bool:
        """Whether its estimator is the objective's first."""
        return self.estimator == next(iter(self.row.methods))

    @property
    def sentence(self) -> str:
        """What is maximized, in words."""
        text = self.row.sentence.format(k=self.k, samples=self.num_samples, **self.parameters)
        return text.replace("average of 1 log weights", "average of 1 log weight")

    def name_parts(self) -> list[str]:
        """`["iwae", "k5", "dreg"]`: different wherever the objective is; a default is left out."""
        parts = [self.row.run_name or self.name]
        parts += [f"m{self.m}"] if "m" in self.parameters else []
        parts.append(f"k{self.k}")
        if not self.has_default_estimator:
            parts.append(self.estimator)
        for parameter, value in self._set_parameters():
            parts.append(f"{parameter.name.replace('_', '')}{exact_number(value)}")
        if self.backward is not None:
            parts.append(f"backward{self.backward}")
        return parts

    def _set_parameters(self) -> Iterator[tuple[Parameter, Number]]:
        """Those that have another value than their default, but for m."""
        for parameter in (*self.row.methods[self.estimator].parameters, *self.row.parameters):
            if parameter is not M and self.parameters[parameter.name] != parameter.default:
                yield parameter, self.parameters[parameter.name]

    def numbers(self) -> dict[str, Number]:
        """Its numbers by name: parameters, then backward, k last."""
        few = {} if self.backward is None else {"backward": self.backward}
        return {**self.parameters, **few, "k": self.k}

    @classmethod
    def parse(cls, text: str, k: int) -> "Objective":
        """An objective from one word: `iwae`, `iwae:dreg`, `ciwae:dreg:beta=0.5`, `miwae:m=4`, with k samples.

        Raises IWAEError for words that are no objective, estimator or parameter.
        """
        name, *rest = text.split(":")
        settings: dict[str, Any] = {}
        for part in rest:
            field, equals, value = part.partition("=")
            if (field if equals else "estimator") in settings:
                raise IWAEError(f"{text!r} gives {field if equals else 'an estimator'} twice")
            if not equals:
                settings["estimator"] = part
                continue
            versions = all_parameters().get(field, [])
            if not versions and field != "backward":
                raise IWAEError(f"{text!r}: expected a word such as iwae, iwae:dreg or ciwae:beta=0.5")
            kind = versions[0].kind if versions else int
            try:
                settings[field] = kind(value)
            except ValueError:
                expected = "an integer" if kind is int else "a number"
                raise IWAEError(f"{text!r}: {field} must be {expected}, got {value!r}") from None
        try:
            return cls(name, k, **settings)
        except IWAEError as error:
            raise IWAEError(f"{text!r}: {str(error).replace('`', '')}") from None


def make_estimator(objective: Objective | str, k: int = 1, *, precision: "Precision" = "float32") -> "Estimator":
    """The estimator that an objective names, or one word such as `iwae:dreg` with k samples (see `Objective.parse`),
    with its matrix products in that precision.

    Raises IWAEError for words that have no meaning.
    """
    chosen = Objective.parse(objective, k) if isinstance(objective, str) else objective
    method, row = chosen.row.methods[chosen.estimator], chosen.row
    cls = getattr(import_module(f"iwae.estimators.{method.module}"), method.name)
    arguments: dict[str, Any] = {p.argument: chosen.parameters[p.name] for p in method.parameters}
    shared = {p.argument: chosen.parameters[p.name] for p in row.parameters}
    if method.of_bound:
        assert row.bound is not None
        arguments["bound"] = bound_of(row.bound, {key: shared[key] for key in shared if key != "num_groups"})
        shared = {key: shared[key] for key in shared if key == "num_groups"}
    if chosen.backward is not None:
        arguments["num_backward"] = chosen.backward
    estimator = cls(chosen.num_samples, **arguments, **shared, **method.fixed)
    if precision == "bfloat16":
        return import_module("iwae.estimators.mixed_precision").InBFloat16(estimator)
    return estimator


def bound_of(name: str, parameters: Mapping[str, Number]) -> Callable[..., Any]:
    """The function of `iwae.bounds` of that name, with its parameters set."""
    function = getattr(import_module("iwae.bounds"), name)
    if not parameters:
        return function
    traced = import_module("iwae.estimators.base").traced
    # Counts are sizes of arrays, which are compiled in.
    given = {name: value if isinstance(value, int) else traced(value) for name, value in parameters.items()}
    return import_module("jax.tree_util").Partial(function, **given)


def _owners(name: str) -> str:
    """`goes with ...`: where a parameter belongs; for an unknown one that it does not exist."""
    owners = []
    for other, row in OBJECTIVES.items():
        if any(p.name == name for p in row.parameters):
            owners.append(f"`objective` {other}")
        for method, how in row.methods.items():
            if any(p.name == name for p in how.parameters):
                is_default = method == next(iter(row.methods))
                owners.append(f"`objective` {other}" + ("" if is_default else f" with `estimator` {method}"))
    return f"goes with {' and '.join(owners)}" if owners else "is no parameter"


def _described(name: str, estimator: str) -> str:
    """`objective iwae estimator stl`; without the estimator where it is the default."""
    chosen = "" if estimator == next(iter(OBJECTIVES[name].methods)) else f" `estimator` {estimator}"
    return f"`objective` {name}{chosen}"
