"""Rows that stay in a file: what is needed of them is read when it is needed, so that they may be more than fit into
the memory.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iwae.data.formats import Header
from iwae.errors import IWAEError

ENVIRONMENT_VARIABLE = "IWAE_DATA_BYTES_IN_MEMORY"
IN_MEMORY = 2 << 30
"""Larger .npy and Parquet files are read in pieces, unless the environment says another number of bytes."""
PIECE = 32 << 20
"""Bytes that are read at once, and of the random sample of training rows that decides what is learned before training:
means, spreads, kinds of values, biases."""


@dataclass(frozen=True)
class RowFile:
    """Numbers in a file, row by row."""

    path: Path
    file: Any
    header: Header

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return int(np.prod(self.header.shape[1:]))

    def __len__(self) -> int:
        return self.header.shape[0]

    @property
    def at_once(self) -> int:
        """Rows of a piece."""
        return max(1, PIECE // (self.width * self.header.dtype.itemsize))

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """The rows of those numbers `[k, width]`, as they are stored. Raises IWAEError where the file has shrunk."""
        found = np.empty((len(numbers), self.width), self.header.dtype)
        size = self.width * self.header.dtype.itemsize
        starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1).tolist()
        for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=False):
            self.file.seek(self.header.start + int(numbers[start]) * size)
            if self.file.readinto(found[start:stop].reshape(-1).view(np.uint8)) < (stop - start) * size:
                raise IWAEError(
                    f"{self.path} has become shorter since it was opened: leave it as it is while it is used"
                )
        return found

    def pieces(self) -> Iterator[np.ndarray]:
        """All rows, piece by piece."""
        for start in range(0, len(self), self.at_once):
            yield self.read(np.arange(start, min(start + self.at_once, len(self))))


class DiskRows:
    """Rows `[n, dim]` that are read from a file when they are asked for, by slices or arrays of indices, as a dataset
    stores them. `numbers` are their places in the file.
    """

    ndim = 2

    def __init__(self, file: RowFile, numbers: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]):
        self._file, self._numbers, self._convert = file, numbers, convert
        example = self[:1] if len(numbers) else convert(file.read(np.arange(1)))
        self.dtype, self.shape = example.dtype, (len(numbers), example.shape[1])

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, places: Any) -> np.ndarray:
        numbers = self._numbers[places]
        rows = self._convert(self._file.read(np.atleast_1d(numbers)))
        return rows if np.ndim(numbers) else rows[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows, where they are few. Raises IWAEError for more than may be in memory."""
        if self.nbytes > bytes_in_memory():
            raise IWAEError(
                f"{len(self):,} rows of {self._file.path} are too many to be in memory at once ({self.nbytes:,} bytes):"
                f" take fewer rows, or set {ENVIRONMENT_VARIABLE} to more bytes"
            )
        return np.asarray(self[:], dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self) * self.shape[1] * self.dtype.itemsize

    def sample(self) -> np.ndarray:
        """All rows, or as many as one piece has, drawn at random, in their order."""
        return self[drawn(len(self), max(1, PIECE // (self.shape[1] * self.dtype.itemsize)))]

    def pieces(self) -> Iterator[np.ndarray]:
        """All rows in the order of the file, piece by piece."""
        numbers = np.sort(self._numbers)
        for start in range(0, len(numbers), self._file.at_once):
            own = numbers[start : start + self._file.at_once]
            first, last = int(own[0]), int(own[-1])
            # Many single reads take longer than one that has some rows too many.
            is_dense = last - first < 2 * len(own)
            yield self._convert(
                self._file.read(np.arange(first, last + 1))[own - first] if is_dense else self._file.read(own)
            )


Rows = np.ndarray | DiskRows


def sample_of(rows: Rows) -> np.ndarray:
    """Rows that stand for all of them in what is learned before training: all, or of `DiskRows` a random sample."""
    return rows.sample() if isinstance(rows, DiskRows) else np.asarray(rows)


def pieces_of(rows: Rows) -> Iterator[np.ndarray]:
    """All rows: at once, or of `DiskRows` in pieces."""
    return rows.pieces() if isinstance(rows, DiskRows) else iter([np.asarray(rows)])


def bytes_in_memory() -> int:
    """How many bytes of data may be in memory. Raises IWAEError where the environment says no whole number."""
    text = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    if text and not text.isdecimal():
        raise IWAEError(f"{ENVIRONMENT_VARIABLE} must be a number of bytes, got {text!r:.50}")
    return int(text) if text else IN_MEMORY


def drawn(count: int, most: int) -> np.ndarray:
    """At most so many of `count` places, at random, in their order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False, shuffle=False))
