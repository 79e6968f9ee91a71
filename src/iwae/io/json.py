"""Reading JSON that somebody else may have written: bounded, from regular files only, of a known shape.

Every JSON file of a run is read here. What comes back is known to be what its type says: numbers are finite and in
their ranges, nothing that is required is missing. NaN and Infinity, which JSON does not have, are refused. Keys that a
type does not name, as newer versions may write them, are left out.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from iwae.errors import IWAEError
from iwae.io.files import read_bounded

MAX_JSON_BYTES = 64 << 20
"""No JSON file of a run may be larger: the metrics of half a million epochs, a hundred layers' worth of variances."""

# Whole numbers that every program reads alike; real ones whose squares and sums are finite too.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Real = Annotated[float, msgspec.Meta(ge=-1e100, le=1e100)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]

T = TypeVar("T")


def parse(content: bytes | str) -> Any:
    """The JSON value. Raises ValueError, in one line."""
    try:
        # Not msgspec's own decoder: it refuses names of files that are no UTF-8, which JSON holds as escapes.
        return json.loads(content, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("its values are nested too deep") from None
    except ValueError as error:
        raise ValueError(shortened(" ".join(str(error).split()))) from None


def decode(content: bytes | str, kind: type[T]) -> T:
    """The JSON value of type `kind`. Raises ValueError, in one line that says where it is another."""
    return _convert(parse(content), kind)


def _convert(value: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except RecursionError:
        raise ValueError("its values are nested too deep") from None
    except ValueError as error:
        raise ValueError(shortened(" ".join(str(error).split()))) from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def read_json(path: Path, kind: type[T], advice: str, newest_format: int | None = None) -> T:
    """The JSON value of type `kind` in a file; `newest_format` is the largest `format` that this version reads.

    Raises IWAEError, naming the file and giving `advice`, for anything else: no regular file, one that is too large
    or can't be read, no JSON, a value of another type. A newer version's record may have another shape: that it is
    newer is said first.
    """
    try:
        content = read_bounded(path, MAX_JSON_BYTES)
    except IWAEError as error:
        raise IWAEError(f"{error}; {advice}") from None
    except OSError as error:
        raise IWAEError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        value = parse(content)
        found = value.get("format", 0) if isinstance(value, dict) else 0
        if newest_format is None or not isinstance(found, int) or found <= newest_format:
            return _convert(value, kind)
    except ValueError as error:
        raise IWAEError(f"{path}: damaged, or not a file of this program ({error}); {advice}") from None
    raise IWAEError(
        f"{path}: format {shortened(str(found))} is newer than this version reads ({newest_format}): upgrade iwae"
    )


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN and no infinity: a figure that does not exist is null."""
    return value if math.isfinite(value) else None


def shortened(text: str, length: int = 200) -> str:
    """`text`, cut where it would fill a terminal."""
    return text if len(text) <= length else f"{text[:length]}…"
