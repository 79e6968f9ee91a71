"""The user's own data: an .npz archive with splits, a single .npy array, a table, a folder of images."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from iwae.data import tables
from iwae.data.columns import Reading
from iwae.data.dataset import DataFile, Dataset, of_splits, of_table
from iwae.data.files import BadFileError, one_line
from iwae.data.formats import read_npy, read_npz
from iwae.errors import IWAEError

SUFFIXES = (".npz", ".npy", *tables.SUFFIXES)
ANY_FILE = "the path of your own data: an .npz, .npy, .csv, .tsv or .parquet file"
KEYS = {"train": ("train", "x_train"), "valid": ("valid", "x_valid"), "test": ("test", "x_test")}
"""What an archive may call its splits; Keras has x_train and x_test."""

_MIN_ROWS = 10


def is_own(name: str) -> bool:
    """Whether a dataset's name is the path of a user's own file."""
    return name.lower().endswith(SUFFIXES)


def load_own(path: str | Path, reading: Reading | None = None) -> Dataset:
    """The dataset in the user's own file, read as `reading` says: by default its kind is decided by type.

    An `.npz` archive holds the splits under the keys `train`, `test` and, where wanted, `valid` (or Keras's `x_train`
    and `x_test`). An `.npy` file holds all examples in one array of at least 10 rows: the last tenth (rounded down)
    becomes the test split, the tenth before it the validation split, and the rest is for training. CSV, TSV and Parquet
    files are tables of such rows. These rows are permuted before they are split, by
    `numpy.random.RandomState(split_seed)`, unless `shuffled` is False: so that the splits of a file whose rows are
    sorted are alike. Training takes the rows in a new order in each epoch, or in the file's.

    Arrays are images `[n, height, width]`, `[n, height, width, 1]` or `[n, 1, height, width]`, or vectors `[n, dim]`,
    of numbers or booleans, NaN where a value is missing: as for `Dataset.from_arrays` with `likelihood` auto. No more
    than 16 GiB are read, and nothing is ever unpickled.

    Raises `IWAEError` where the file is anything else.
    """
    path, reading = Path(path), reading or Reading()
    shown = one_line(path)
    if os.path.isdir(path):
        raise IWAEError(f"{shown} is a directory; give {ANY_FILE}")
    if not os.path.exists(path):
        raise IWAEError(f"there is no file {shown}; give {ANY_FILE}")
    if not os.path.isfile(path):
        raise IWAEError(f"{shown} is not an ordinary file; give {ANY_FILE}")
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        dataset = _read(path, reading)
    except (BadFileError, IWAEError) as error:
        raise IWAEError(f"cannot use {shown} as data: {error}") from error
    except OSError as error:
        raise IWAEError(f"cannot read {shown}: {error.strerror or one_line(error)}; check the file") from error
    except MemoryError as error:
        raise IWAEError(f"{shown} does not fit into memory; use fewer examples or uint8 values") from error
    files = (DataFile(path.name, f"sha256:{digest}", None),)
    return replace(dataset, name=os.path.abspath(path), files=files, shuffled=reading.shuffled is not False)


def _read(path: Path, reading: Reading) -> Dataset:
    if tables.is_table(path):
        frame = tables.read_table(path)
        columns = tables.learn_columns({"train": frame}, reading)
        return of_table(_split_array(tables.to_rows(frame, columns), reading), columns)
    if path.suffix.lower() == ".npy":
        return of_splits(_split_array(read_npy(path), reading), reading)
    return of_splits(_read_archive(path), reading)


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    found = read_npz(path, sum(KEYS.values(), ()))
    arrays = {name: found[key] for name, keys in KEYS.items() for key in keys if key in found}
    missing = [key for key in ("train", "test") if key not in arrays]
    if missing:
        raise BadFileError(f"it has no array {' and no array '.join(repr(key) for key in missing)}; add it")
    for name, array in arrays.items():
        if array.ndim and array.size == 0:
            raise BadFileError(f"'{name}' is empty (shape {array.shape}); give it examples or leave it out")
    return arrays


def _split_array(array: np.ndarray, reading: Reading) -> dict[str, np.ndarray]:
    if array.ndim and len(array) < _MIN_ROWS:
        raise BadFileError(f"{len(array)} rows are too few to be split, at least {_MIN_ROWS} are needed")
    count = len(array) if array.ndim else 0
    held_out, rows = count // 10, np.arange(count)
    if reading.shuffled is not False:
        rows = np.random.RandomState(reading.split_seed).permutation(count)
    train, valid, test = np.split(rows, [count - 2 * held_out, count - held_out])
    return {"train": array[train], "valid": array[valid], "test": array[test]}
