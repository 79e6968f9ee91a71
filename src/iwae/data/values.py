"""From arrays of numbers to what a dataset stores: uint8 where that is lossless, float32 otherwise."""

from collections.abc import Mapping

import numpy as np

from iwae.data.files import BadFileError

TOLERANCE = 2.5e-7
"""How far a value may lie from 0, 1 or a multiple of 1/255 by rounding (about two units of float32 at 1)."""

_BLOCK_ROWS = 1024
_LEAST_GREY = 128


class OutOfRangeError(BadFileError):
    """Numbers that are no probabilities."""


def counts_of_sparse(array: np.ndarray) -> np.ndarray:
    """What a sparse matrix holds, as integers where all of it is whole and not negative: most programs keep the counts
    in such a matrix as floating point numbers.
    """
    if array.dtype.kind != "f" or not len(array):
        return array
    is_counts = array.min() >= 0 and array.max() < 2**31 and bool((array == np.floor(array)).all())
    return array.astype(np.int32) if is_counts else array


def check_grey(splits: Mapping[str, np.ndarray]) -> None:
    """Raises BadFileError for uint8 values that are no bits and don't come near 255: what they are is for the user to
    say.
    """
    largest = max(int(array.max(initial=0)) if array.dtype == np.uint8 else 0 for array in splits.values())
    if 1 < largest < _LEAST_GREY:
        raise BadFileError(
            f"the uint8 values reach to {largest}, those of grey images to 255: give `likelihood` poisson or"
            " negative-binomial for counts, gaussian for measurements, categorical for levels, bernoulli for dark grey"
        )


def pack(splits: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], float, bool]:
    """The splits as they are stored, their common scale, and whether every value is 0 or 1.

    Each split is a non-empty `[examples, dim]` array of floating point numbers in [0, 1], of booleans or
    integers 0 and 1, or of uint8; uint8 splits with any value above 1 are grey values from 0 to 255. Zeros
    and ones are stored as uint8 with scale 1, multiples of 1/255 as uint8 with scale 1/255, everything else, and what
    has NaN for missing values, as float32 with scale 1.

    Raises `OutOfRangeError` where a value is out of range, and `BadFileError` where one is infinite or not a real
    number, or where grey uint8 is mixed with other types.
    """
    for name, array in splits.items():
        _check_range(name, array)
    if any(array.dtype == np.uint8 and array.max() > 1 for array in splits.values()):
        others = [name for name, array in splits.items() if array.dtype != np.uint8]
        if others:
            raise BadFileError(
                f"'{others[0]}' is of type {splits[others[0]].dtype} beside uint8 grey values; use one type for all"
            )
        return {name: np.ascontiguousarray(array) for name, array in splits.items()}, 1 / 255, False
    has_gaps = any(array.dtype.kind == "f" and np.isnan(array).any() for array in splits.values())
    for levels in () if has_gaps else (1, 255):
        stored: dict[str, np.ndarray] = {}
        for name, array in splits.items():
            quantized = _quantize(array, levels)
            if quantized is None:
                break
            stored[name] = quantized
        else:
            return stored, 1 / levels, levels == 1
    # Rounding may have carried a value just over the edge.
    clipped = {name: np.clip(array, 0, 1, dtype=np.float32, casting="same_kind") for name, array in splits.items()}
    return clipped, 1.0, has_gaps and all(np.isin(a[~np.isnan(a)], (0, 1)).all() for a in clipped.values())


def _check_range(name: str, array: np.ndarray) -> None:
    if array.dtype.kind not in "buif":
        raise BadFileError(f"'{name}' is of type {array.dtype}, expected real numbers")
    if array.dtype == np.uint8 or array.dtype.kind == "b":
        return
    # Of a split without any value both are NaN, and it is in range.
    low, high = np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None)
    if np.isinf(low) or np.isinf(high):
        raise BadFileError(f"'{name}' contains infinite values; NaN is what marks a missing one")
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise OutOfRangeError(
            f"the values of '{name}' ({array.dtype}) reach from {low} to {high}; "
            "give numbers in [0, 1], or uint8 grey values from 0 to 255"
        )


def _quantize(array: np.ndarray, levels: int) -> np.ndarray | None:
    """`array * levels` as uint8, or None where that is not a whole number everywhere."""
    quantized = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), _BLOCK_ROWS):
        block = array[start : start + _BLOCK_ROWS]
        if rows_that_are_not_whole(block, levels).any():
            return None
        quantized[start : start + _BLOCK_ROWS] = np.rint(block.astype(np.float64) * levels)
    return quantized


def rows_that_are_not_whole(rows: np.ndarray, levels: int) -> np.ndarray:
    """Of every row, whether `rows * levels` has a number that is not whole; NaN says nothing. bool `[n]`."""
    values = rows.astype(np.float64) * levels
    with np.errstate(invalid="ignore"):
        return np.any(np.abs(values - np.rint(values)) > TOLERANCE * levels, axis=1)
