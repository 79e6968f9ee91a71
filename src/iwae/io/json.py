"""Reading JSON that somebody else may have written: bounded, from regular files only, of a known shape.

Every JSON file of a run is read here. What comes back is known to be what its type says: numbers are finite and in
their ranges, nothing that is required is missing. NaN and Infinity, which JSON does not have, are refused. Keys that a
type does not name, as newer versions may write them, are left out.
"""

import json
from pathlib import Path
from typing import Annotated, TypeVar

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


def decode(content: bytes | str, kind: type[T]) -> T:
    """The JSON value of type `kind`. Raises ValueError, in one line that says where it is another."""
    try:
        # Not msgspec's own decoder: it refuses names of files that are no UTF-8, which JSON holds as escapes.
        return msgspec.convert(json.loads(content, parse_constant=_refuse), kind)
    except RecursionError:
        raise ValueError("its values are nested too deep") from None
    except ValueError as error:
        raise ValueError(shortened(" ".join(str(error).split()))) from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def read_json(path: Path, kind: type[T], advice: str) -> T:
    """The JSON value of type `kind` in a file.

    Raises IWAEError, naming the file and giving `advice`, for anything else: no regular file, one that is too large
    or can't be read, no JSON, a value of another type.
    """
    try:
        return decode(read_bounded(path, MAX_JSON_BYTES), kind)
    except IWAEError as error:
        raise IWAEError(f"{error}; {advice}") from None
    except OSError as error:
        raise IWAEError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise IWAEError(f"{path}: damaged, or not a file of this program ({error}); {advice}") from None


def shortened(text: str, length: int = 200) -> str:
    """`text`, cut where it would fill a terminal."""
    return text if len(text) <= length else f"{text[:length]}…"
