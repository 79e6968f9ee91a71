"""A grid of options and seeds: the runs of a sweep, from the command line or a file."""

import difflib
import hashlib
import itertools
import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypedDict, Union, get_args, get_origin

import msgspec

from iwae.data import is_own
from iwae.errors import IWAEError
from iwae.estimators.objective import all_methods, all_parameters
from iwae.estimators.table import OBJECTIVES
from iwae.io.files import expanded, read_bounded
from iwae.io.json import MAX_JSON_BYTES, Count, parse, shortened
from iwae.runs.config import SHORT_FORMS, RunConfig
from iwae.runs.options import MeasureOptions, TrainOptions
from iwae.runs.records import ConfigRecord

GRID = "`grid`"
OF_ALL = tuple(field.name for options in (MeasureOptions, TrainOptions) for field in fields(options))
"""Options of training and measuring that are no part of a run's configuration."""
Value = bool | int | float | str | list[int | str] | None


class PointRecord(TypedDict):
    """A run of a sweep: its directory's name, its values of the grid's options, its seed, its configuration."""

    run: str
    point: dict[str, Value]
    seed: Count
    config: ConfigRecord


@dataclass(frozen=True)
class Definition:
    """What a sweep is over: options of `iwae train` that all runs have, values of others, and seeds."""

    options: Mapping[str, Any]
    grid: Mapping[str, tuple[Any, ...]]
    seeds: tuple[int, ...]

    def points(self) -> list[PointRecord]:
        """Every run: the product of the grid's values, each with every seed.

        Raises IWAEError where a combination has no meaning, or two are the same run.
        """
        both = [name for name in self.grid if name in self.options]
        if both:
            raise IWAEError(f"`grid` {both[0]}: this option was given beside the grid too: leave one of them out")
        found: dict[str, PointRecord] = {}
        for point, settings in self.combinations():
            for seed in self.seeds:
                shown = " ".join([*(f"{name}={label(value)}" for name, value in point.items()), f"seed={seed}"])
                try:
                    config = RunConfig.of(**_located({**self.options, **settings}), seed=seed)
                except IWAEError as error:
                    raise IWAEError(f"{shown}: {error}") from None
                name = config.name()
                if name in found:
                    raise IWAEError(f"{shown} is the same run as another of the grid, {name}: leave one of them out")
                shown_point = {key: plain(value) for key, value in point.items()}
                found[name] = {"run": name, "point": shown_point, "seed": seed, "config": config.to_json()}
        return list(found.values())

    def digest(self) -> str:
        """What tells its runs from those of others, in eight digits."""
        runs = json.dumps([point["config"] for point in self.points()], sort_keys=True)
        return hashlib.sha256(runs.encode()).hexdigest()[:8]

    def combinations(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Every combination of the grid's values, and the options of a run that it stands for: the same."""
        for values in itertools.product(*self.grid.values()):
            point = dict(zip(self.grid, values, strict=True))
            yield point, point


def _located(settings: dict[str, Any]) -> dict[str, Any]:
    """With the whole path of custom data: jobs may be started from elsewhere."""
    dataset = settings.get("dataset")
    return {**settings, "dataset": os.path.abspath(expanded(dataset))} if dataset and is_own(dataset) else settings


WORDS = {int: "a whole number", float: "a number", bool: "true or false", (int,): "whole numbers, such as 100+50"}


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def label(value: Any) -> str:
    """A value as it is given on the command line: numbers of several layers as 100+50."""
    if isinstance(value, tuple | list):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# What is given, as text or in a file


def option_types() -> dict[str, Any]:
    """The options that a grid can have, those of a run's configuration but its seed, and what their values are."""
    own = {
        "model": Literal[tuple(SHORT_FORMS)],
        "objective": Literal[tuple(OBJECTIVES)],
        "estimator": Literal[tuple(all_methods())],
        "k": int,
        "backward": int,
        **{name: versions[0].kind for name, versions in all_parameters().items()},
    }
    return {**{f.name: f.type for f in fields(RunConfig) if f.name not in ("objective", "seed")}, **own}


def read_options(given: Mapping[str, Any], place: str = GRID) -> dict[str, Any]:
    """Options by their names, with dashes or underscores, and values as text or as in a file. `place` is what errors
    say of where they are given.
    """
    return {(known := known_name(name, place)): read_value(known, value, place) for name, value in given.items()}


def read_axes(given: Iterable[str]) -> dict[str, list[str]]:
    """Axes as `name=value,value`. Raises IWAEError for anything else, and for a name that is given twice."""
    axes: dict[str, list[str]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        found = [value.strip() for value in values.split(",") if value.strip()]
        if not equals or not found:
            raise IWAEError(f"`grid` must be an option and its values, such as k=1,5,50, got {text!r}")
        if known_name(name) in map(known_name, axes):
            raise IWAEError(f"`grid` {name} was given twice: give all its values at once")
        axes[name] = found
    return axes


def read_grid(given: Mapping[str, Any], place: str = GRID) -> dict[str, tuple[Any, ...]]:
    """The values of every axis. Raises IWAEError for a name or value that no option has."""
    axes: dict[str, tuple[Any, ...]] = {}
    for name, values in given.items():
        known = known_name(name, place)
        if not isinstance(values, list | tuple) or not values:
            raise IWAEError(f"{place} {name}: expected a list of values, got {values!r}")
        axes[known] = tuple(read_value(known, value, place) for value in values)
        if len(set(axes[known])) < len(axes[known]):
            raise IWAEError(f"{place} {name}: its values must differ, got {', '.join(map(label, axes[known]))}")
    return axes


def known_name(name: str, place: str = GRID) -> str:
    """The option of this name. Raises IWAEError, with the nearest, where there is none."""
    plain, known = name.strip().replace("-", "_"), option_types()
    if plain in known:
        return plain
    if plain in ("seed", "seeds"):
        raise IWAEError(f"{place} {name}: seeds are given by `seeds`, such as 0:5")
    if plain in OF_ALL:
        raise IWAEError(f"{place} {name}: it is one for all runs, give `{plain}` by itself")
    raise IWAEError(f"{place} {name}: there is no such option of a run{nearest(plain, known)}")


def read_value(name: str, value: Any, place: str = GRID) -> Any:
    """A value of an option, from text or as in a file. Raises IWAEError for one that it can't have."""
    kind = option_types()[name]
    kinds = get_args(kind) if isinstance(kind, UnionType) or get_origin(kind) is Union else (kind,)
    choices = [choice for one in kinds if get_origin(one) is Literal for choice in get_args(one)]
    if choices and value not in choices:
        raise IWAEError(f"{place} {name} must be one of {', '.join(choices)}, got {value!r}{nearest(value, choices)}")
    if any(get_origin(one) is tuple for one in kinds) and not isinstance(value, list | tuple):
        value = value.split("+") if isinstance(value, str) else [value]
    try:
        # What is in quotes in a file is text, and what is on the command line may be a number.
        return msgspec.convert(value, kind, strict=not isinstance(value, str | list))
    except msgspec.ValidationError:
        what = next(WORDS.get(get_args(one)[:1] if get_origin(one) is tuple else one, "text") for one in kinds)
        raise IWAEError(f"{place} {name}: expected {what}, got {label(value)!r}") from None


def nearest(name: Any, known: Iterable[str]) -> str:
    """`: did you mean k?`, or what there is."""
    found = difflib.get_close_matches(str(name), known := list(known), 1)
    return f": did you mean {found[0]}?" if found else f": there are {', '.join(known)}"


def read_file(path: Path) -> dict[str, Any]:
    """A definition in TOML or JSON: tables `options` and `grid`, and `seeds`, a list. Raises IWAEError or OSError."""
    try:
        content = read_bounded(path, MAX_JSON_BYTES)
    except FileNotFoundError:
        raise IWAEError(f"{path}: there is no such file; a sweep's is TOML or JSON, see docs/how-to/sweep.md") from None
    if path.suffix.lower() not in (".json", ".toml"):
        raise IWAEError(f"{path}: a sweep's file is TOML or JSON, and ends in .toml or .json")
    kind, read = ("JSON", parse) if path.suffix.lower() == ".json" else ("TOML", tomllib.loads)
    try:
        found = read(content.decode())
    except ValueError as error:
        raise IWAEError(f"{path}: no {kind} ({shortened(' '.join(str(error).split()))})") from None
    kinds = {"options": dict, "grid": dict, "seeds": list}
    for name, value in found.items() if isinstance(found, dict) else [("", found)]:
        if name not in kinds:
            raise IWAEError(f"{path}: expected tables [options] and [grid] and a list 'seeds', got {name or value!r}")
        if not isinstance(value, kinds[name]):
            raise IWAEError(f"{path}: {name} must be a {'list' if name == 'seeds' else 'table'}, got {value!r}")
    for seed in found.get("seeds", ()):
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise IWAEError(f"{path}: seeds must be whole numbers, got {seed!r}")
    return found
