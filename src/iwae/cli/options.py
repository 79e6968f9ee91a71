"""How options read on the command line and in its help: what may be left out, and lists of seeds."""

import dataclasses
import types
from typing import Annotated, Any, Union, get_args

from tyro.conf import arg
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
    UnsupportedTypeAnnotationError,
)

REGISTRY = ConstructorRegistry()
SEEN = object()


@REGISTRY.struct_rule
def _dataclass(info: StructTypeInfo) -> StructConstructorSpec | None:
    """The help says no default where the default is to give nothing: the option's own text says what happens then."""
    if not dataclasses.is_dataclass(info.type) or SEEN in info.markers:
        return None
    # The parser's own rule for it, which this one would otherwise be asked for again.
    spec = ConstructorRegistry.get_struct_spec(dataclasses.replace(info, markers=(*info.markers, SEEN)))
    if not isinstance(spec, StructConstructorSpec):
        return None
    return dataclasses.replace(spec, fields=tuple(map(_without_empty_default, spec.fields)))


def _without_empty_default(field: StructFieldSpec) -> StructFieldSpec:
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


def _integers(words: list[str]) -> tuple[int, ...]:
    numbers = [number for word in words for number in word.split(",") if number]
    if not numbers:
        raise ValueError("give at least one seed, such as 0,1,2")
    return tuple(int(number) for number in numbers)


Seeds = Annotated[
    tuple[int, ...],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="INT,INT,...",
        instance_from_str=_integers,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    ),
]
