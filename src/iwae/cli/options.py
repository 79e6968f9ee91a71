"""How options read on the command line and in its help, and those that several commands share."""

import dataclasses
import os
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
    UnsupportedTypeAnnotationError,
)

from iwae.errors import IWAEError
from iwae.estimators.objective import all_methods, all_parameters
from iwae.estimators.table import OBJECTIVES
from iwae.models.networks import NETWORKS
from iwae.models.posteriors import POSTERIORS
from iwae.models.priors import PRIORS
from iwae.runs.config import SHORT_FORMS, RunConfig
from iwae.runs.model_options import ModelOptions

STYLE = (FlagCreatePairsOff, OmitArgPrefixes)
REGISTRY = ConstructorRegistry()
SEEN = object()
RESULTS_VARIABLE = "IWAE_RESULTS_DIR"


@dataclass(frozen=True)
class OfRun:
    """What the commands that need a run's model have in common."""

    path: Positional[Path]
    """The run's directory."""
    checkpoint: int | None = None
    """The state after this many stages (default: the newest)."""


@dataclass(frozen=True)
class OfRunAndData(OfRun):
    """What the commands that need a run's data too have in common."""

    dataset: Path | None = None
    """Where your own data is now, if it has moved since training."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first (also: IWAE_DATASETS_DIR)."""


def default_results_dir() -> Path:
    """Where runs go unless told otherwise: the environment variable IWAE_RESULTS_DIR, or `results`."""
    return Path(os.path.expanduser(os.environ.get(RESULTS_VARIABLE) or "results"))


def option_names(form: type) -> set[str]:
    """The names of all options of a command."""
    form = RunConfig if issubclass(form, Settings) else form
    names = _objective_names() if form is RunConfig else set()
    for field in dataclasses.fields(form):
        if dataclasses.is_dataclass(field.type):
            names |= option_names(field.type)  # pyright: ignore[reportArgumentType]
        elif Positional not in get_args(field.type):
            names.add(field.name)
    return names


@dataclass(frozen=True)
class Settings:
    """Those of a run's options that were given, by name."""

    given: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class SettingsBesideObjectives(Settings):
    """Those that were given of a run's options but for the objective's and the seed."""


class Refused(Exception):
    """The IWAEError with which a dataclass refused its values: the parser takes every ValueError for its own."""

    def __init__(self, error: IWAEError):
        super().__init__(str(error))
        self.error = error


@REGISTRY.struct_rule
def _dataclass(info: StructTypeInfo) -> StructConstructorSpec | None:
    """The help is as `_with_plain_help` has it, and a refusal is no usage error of the parser's."""
    if not dataclasses.is_dataclass(info.type) or SEEN in info.markers:
        return None
    given_as = info.type
    as_given = given_as in (Settings, SettingsBesideObjectives)
    if as_given:
        info = dataclasses.replace(info, type=RunConfig, default=RunConfig())
    # The parser's own rule for it, which this one would otherwise be asked for again.
    spec = ConstructorRegistry.get_struct_spec(dataclasses.replace(info, markers=(*info.markers, SEEN)))
    if not isinstance(spec, StructConstructorSpec):
        return None
    if info.type is RunConfig:
        spec = _on_one_level(spec)
    if as_given:
        spec = _unresolved(spec, {"seed", *_objective_names()} if given_as is SettingsBesideObjectives else set())
    fields = tuple(map(_with_plain_help, spec.fields))
    return dataclasses.replace(spec, instantiate=_refusing(spec.instantiate), fields=fields)


def _on_one_level(spec: StructConstructorSpec) -> StructConstructorSpec:
    """A run's options: those of the objective, from its table, in the place of the object that holds them."""
    defaults = {field.name: field.default for field in dataclasses.fields(RunConfig)}
    names = {"network": _one_of(NETWORKS), "prior": _one_of(PRIORS), "posterior": _one_of(POSTERIORS)}
    fields = [
        dataclasses.replace(field, default=defaults[field.name], type=names.get(field.name, field.type))
        for field in spec.fields
    ]
    # Those that a run's data and objective go before.
    of_model = {field.name for field in dataclasses.fields(ModelOptions)}
    model = [field for field in fields if field.name in of_model]
    fields = [field for field in fields if field.name not in of_model]
    place = next(index for index, field in enumerate(fields) if field.name == "objective")
    fields[place : place + 1] = [*_objective_fields(), *model]

    def instantiate(**given: Any) -> RunConfig:
        return RunConfig.of(**given)

    return StructConstructorSpec(instantiate, tuple(fields))


def _unresolved(spec: StructConstructorSpec, without: set[str]) -> StructConstructorSpec:
    """The same options but some, of which those that differ from the defaults are kept as they were given."""
    fields = tuple(field for field in spec.fields if field.name not in without)
    defaults = {field.name: field.default for field in fields}

    def instantiate(**given: Any) -> Settings:
        return Settings({name: value for name, value in given.items() if value != defaults[name]})

    return dataclasses.replace(spec, instantiate=instantiate, fields=fields)


def _objective_names() -> set[str]:
    return {field.name for field in _objective_fields()}


def _one_of(names: Iterable[str]) -> Any:
    return Literal[tuple(names)]  # pyright: ignore[reportInvalidTypeForm]


def _objective_fields() -> list[StructFieldSpec]:
    def field(name: str, kind: Any, text: str, default: Any = None) -> StructFieldSpec:
        return StructFieldSpec(name, kind, default, helptext=text)

    vae = "Short for --objective elbo, the average of k log weights (vae, the default), or the bound L_k (iwae)."
    objective = "What is maximized (default: as --model); see docs/estimators.md."
    estimator = "How its gradient is estimated (default: the objective's first). Binary latents need score."
    return [
        field("model", _one_of(SHORT_FORMS) | None, vae),
        field("objective", _one_of(OBJECTIVES) | None, objective),
        field("k", int, "Number of samples per example (miwae, piwae: in each of the m groups).", 1),
        *(
            field(name, versions[0].kind | None, ". ".join(version.help for version in versions) + ".")
            for name, versions in all_parameters().items()
        ),
        field("estimator", _one_of(all_methods()) | None, estimator),
        field("backward", int | None, "Samples that go through the backward pass, drawn by weight (default: all)."),
    ]


def _refusing(make: Callable[..., Any]) -> Callable[..., Any]:
    def instantiate(*args: Any, **kwargs: Any) -> Any:
        try:
            return make(*args, **kwargs)
        except IWAEError as error:
            raise Refused(error) from None

    return instantiate


def _with_plain_help(field: StructFieldSpec) -> StructFieldSpec:
    """Text without the line breaks of its source; no default where the default is to give nothing: the text says what
    happens then.
    """
    text = field.helptext

    def plain() -> str | None:
        # The parser reads the sources for it, and only when help is asked for.
        found = text() if callable(text) else text
        return found if found is None else " ".join(found.split())

    field = dataclasses.replace(field, helptext=plain)
    if field.default is None or field.default is False or field.default == ():
        return dataclasses.replace(field, type=Annotated[field.type, arg(help_behavior_hint="")])
    return field


@REGISTRY.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | UnsupportedTypeAnnotationError | None:
    """`T | None` is a T: its None is no word that anyone has to type."""
    given = [kind for kind in get_args(info.type) if kind is not type(None)]
    if info.type_origin not in (Union, types.UnionType) or len(given) != 1:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(given[0], info.markers))
    if isinstance(spec, UnsupportedTypeAnnotationError):
        return spec
    return dataclasses.replace(
        spec,
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else spec.str_from_instance(value),
    )


@REGISTRY.primitive_rule
def _path(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    """`--results-dir=~/x`, where the shell leaves the ~ as it is, is in the home directory."""
    if info.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: Path(os.path.expanduser(words[0])),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


def _integers(words: list[str]) -> tuple[int, ...]:
    written = [number for word in words for number in word.split(",")]
    if not all(written):
        raise ValueError(f"{' '.join(words)}: a number is missing before or after a comma")
    numbers: list[int] = []
    for number in written:
        start, is_range, end = number.partition(":")
        try:
            numbers += range(int(start), int(end)) if is_range else [int(start)]
        except ValueError:
            raise ValueError(f"{number!r}: expected whole numbers, such as 0,1,2 or 0:3") from None
    if not numbers:
        raise ValueError("give at least one number, such as 0,1,2 or 0:3")
    return tuple(numbers)


Output = Annotated[Path | None, arg(aliases=("--out",))]
"""What a command writes; its older name works still."""
Integers = Annotated[
    tuple[int, ...],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="INT,INT,...",
        instance_from_str=_integers,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    ),
]
