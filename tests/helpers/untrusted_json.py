"""JSON as a stranger might hand it over: every field of a record replaced by something else, or missing."""

import json
from collections.abc import Iterator
from typing import Any

REMOVED = object()
DEEP = "@nested very deep@"
VALUES = (
    REMOVED,
    None,
    True,
    "\x1b]0;owned\x07[/b]|<script>",
    -1,
    0,
    10**13,
    10**30,
    1e300,
    float("nan"),
    [],
    {},
    ["x", -1],
    DEEP,
)


def mutants(record: Any, below: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Where something was replaced and the whole text with it, for every field in `record[below[0]][below[1]]...` and
    every value; of lists the first entry stands for all.
    """
    for path in _paths(_at(record, below), below):
        for value in VALUES:
            yield f"{'.'.join(map(str, path))} = {value!r:.30}", _text(_replaced(record, path, value))


def _at(record: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        record = record[key]
    return record


def _paths(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from _paths(inner, (*path, key))


def _replaced(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(record))
    inner = _at(copy, path[:-1])
    if value is REMOVED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return copy


def _text(record: Any) -> str:
    return json.dumps(record).replace(json.dumps(DEEP), "[" * 5_000 + "]" * 5_000)
