"""Parts of models by name, where they are, and the options that they take (no JAX is imported here)."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A part of a model: its class, as `module.Class` in `iwae.models`, and the options of `Architecture` that its
    `create` takes. A network of images has a class for the visible layer too, `decoder`.
    """

    home: str
    options: tuple[str, ...] = ()
    decoder: str | None = None


def class_at(home: str) -> Any:
    """The class of `module.Class` in `iwae.models`."""
    module, _, name = home.rpartition(".")
    return getattr(import_module(f"iwae.models.{module}"), name)


def name_in(kinds: Mapping[str, Kind], part: Any) -> str | None:
    """The name of a part; None for one that is not listed."""

    def is_of(home: str | None) -> bool:
        return home is not None and type(part) is class_at(home)

    return next((name for name, kind in kinds.items() if is_of(kind.home) or is_of(kind.decoder)), None)
