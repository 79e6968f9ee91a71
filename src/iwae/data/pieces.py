"""Datasets of .npy and Parquet files that are read in pieces, as they may be larger than the memory."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from iwae.data import parquet, tables
from iwae.data.columns import Column, Reading
from iwae.data.dataset import Dataset, compact, of_splits, of_table
from iwae.data.disk_rows import PIECE, DiskRows, RowFile, bytes_in_memory, drawn
from iwae.data.files import BadFileError
from iwae.data.formats import Header, read_header
from iwae.data.values import pack, rows_that_are_not_whole
from iwae.errors import IWAEError
from iwae.io.files import open_regular


def is_large(path: Path) -> bool:
    """Whether a file is one that is read in pieces: an .npy or Parquet file of more numbers than may be in memory."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return path.stat().st_size > bytes_in_memory()
    return suffix == ".parquet" and parquet.count_numbers(path) * np.dtype(np.float32).itemsize > bytes_in_memory()


def load_in_pieces(path: Path, reading: Reading, split: Callable[[int], dict[str, np.ndarray]]) -> Dataset:
    """The dataset in an .npy or Parquet file, whose splits are `DiskRows`; `split` gives the numbers of the rows of
    each, for a number of rows.

    Kinds of values, levels and storage are those which the whole file would have in memory, but what depends on the
    spread of counts and on columns' means is decided by a random sample of 32 MiB of the training rows, or all of them.
    A table is first copied to a temporary file of float32 numbers, one part after the other.

    Raises BadFileError and IWAEError for what can't be used, and OSError where it can't be read.
    """
    if reading.has_total:
        raise IWAEError("`likelihood` row-total=exposure needs all rows in memory: add the totals to the file")
    file, columns = _table(path, reading) if tables.is_table(path) else (_array(path), ())
    numbers = split(len(file))
    train = file.read(numbers["train"][drawn(len(numbers["train"]), file.at_once)])
    places: Any = slice(None)
    if not columns and (reading.columns or reading.target):
        places = reading.chosen([str(place) for place in range(file.width)])
    telling = _telling(file, places)
    if columns:
        dataset = of_table({"train": train, "test": telling}, columns)
    else:
        shape = file.header.shape[1:]
        dataset = of_splits({"train": train.reshape(-1, *shape), "test": telling.reshape(-1, *shape)}, reading)
    is_packed = dataset.likelihood == "bernoulli" and not dataset.columns

    def convert(rows: np.ndarray) -> np.ndarray:
        chosen = rows[:, places]
        return pack({"rows": chosen, "telling": telling[:, places]})[0]["rows"] if is_packed else compact(chosen)

    splits: dict[str, Any] = {name: DiskRows(file, own, convert) for name, own in numbers.items()}
    return replace(dataset, **splits)


def _array(path: Path) -> RowFile:
    file = open_regular(path)
    header = read_header(file, os.fstat(file.fileno()).st_size, "the array", 1 << 62)
    if header.is_fortran and len(header.shape) > 1:
        file.close()
        raise BadFileError("its columns lie one after the other, and it is read row by row: save it in C order")
    return RowFile(path, file, header)


def _table(path: Path, reading: Reading) -> tuple[RowFile, tuple[Column, ...]]:
    """The rows of a Parquet file, in a temporary file that nobody else sees."""
    parts = parquet.parts_of(path, PIECE)
    columns = parquet.learn_columns_in_parts(parts, reading, PIECE)
    count = 0
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - it is read as long as the rows are.
        for part in parts():
            with np.errstate(over="ignore"):
                rows = tables.to_rows(part, columns).astype(np.float32)
            if np.isinf(rows).any():
                name = columns[int(np.isinf(rows).any(axis=0).argmax())].name
                raise IWAEError(f"column {name!r} has a value too large for float32: divide it by a constant")
            file.write(rows.data)
            count += len(rows)
        file.flush()
    except OSError as error:
        raise IWAEError(
            f"its rows can't be written to a temporary file in {tempfile.gettempdir()} ({error.strerror}): make room"
            " there, or set TMPDIR to another directory"
        ) from error
    return RowFile(path, file, Header((count, len(columns)), False, np.dtype(np.float32), 0)), columns


def _telling(file: RowFile, places: Any) -> np.ndarray:
    """A few rows that say for all what their storage depends on: those of the least and the largest value, and the
    first with one missing, with one that is no bit, and with one that is no grey value of 255 (see `pack`).
    """
    found: dict[str, np.ndarray] = {}
    low, high = np.inf, -np.inf
    for block in file.pieces():
        values = block[:, places]
        least, most = np.fmin.reduce(values, axis=1), np.fmax.reduce(values, axis=1)
        seen = np.flatnonzero(least == least)
        if len(seen) and least[seen].min() < low:
            low, found["low"] = least[seen].min(), block[seen[least[seen].argmin()]]
        if len(seen) and most[seen].max() > high:
            high, found["high"] = most[seen].max(), block[seen[most[seen].argmax()]]
        if values.dtype.kind != "f":
            continue
        tests = {"missing": lambda rows: np.isnan(rows).any(axis=1)}
        tests |= {str(levels): lambda rows, n=levels: rows_that_are_not_whole(rows, n) for levels in (1, 255)}
        for name, test in tests.items():
            if name not in found and (told := test(values)).any():
                found[name] = block[told.argmax()]
    return np.stack(list(found.values())) if found else file.read(np.arange(1))
