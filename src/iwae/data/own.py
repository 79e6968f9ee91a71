"""The user's own data: arrays, tables, images, sparse matrices."""

import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from iwae.data import images, pieces, sparse, tables
from iwae.data.columns import Reading
from iwae.data.dataset import DataFile, Dataset, of_splits, of_table
from iwae.data.files import BadFileError, one_line
from iwae.data.formats import read_npy, read_npz
from iwae.data.values import counts_of_sparse
from iwae.errors import IWAEError

SUFFIXES = (".npz", ".npy", ".h5ad", *tables.SUFFIXES, *images.IDX_SUFFIXES)
ANY_FILE = "the path of your own data: an .npz, .npy, .csv, .tsv, .parquet or .h5ad file, or a folder/ of images"
KEYS = {"train": ("train", "x_train"), "valid": ("valid", "x_valid"), "test": ("test", "x_test")}
"""What an archive may call its splits; Keras has x_train and x_test."""

_MIN_ROWS = 10


def is_own(name: str) -> bool:
    """Whether a dataset's name is the path of a user's own file or folder: a folder's has a slash."""
    return name.lower().endswith(SUFFIXES) or os.sep in name


def load_own(path: str | Path, reading: Reading | None = None) -> Dataset:
    """The dataset in the user's own file, read as `reading` says: by default its kind is decided by type.

    An `.npz` archive holds the splits under the keys `train`, `test` and, where wanted, `valid` (or Keras's `x_train`
    and `x_test`). An `.npy` file holds all examples in one array of at least 10 rows: the last tenth (rounded down)
    becomes the test split, the tenth before it the validation split, and the rest is for training. CSV, TSV, Parquet
    and .h5ad files are tables of such rows, and files of `scipy.sparse.save_npz` hold them too; an idx file has images.
    These rows are permuted before they are split, by `numpy.random.RandomState(split_seed)`, unless `shuffled` is
    False: so that the splits of a file whose rows are sorted are alike. A folder has idx files for train and test, PNG
    and JPEG images in its folders `train`, `test` and `valid`, or images that are split as the rows of an array.
    Training takes the rows in a new order in each epoch, or in the file's.

    Of an .npy or Parquet file of more than 2 GiB (`IWAE_DATA_BYTES_IN_MEMORY` says another number of bytes) the splits
    are `iwae.data.disk_rows.DiskRows`, which are read in pieces, those of a table by way of a temporary file.

    Arrays are images `[n, height, width]`, `[n, height, width, 1]` or `[n, 1, height, width]`, or vectors `[n, dim]`,
    of numbers or booleans, NaN where a value is missing: as for `Dataset.from_arrays` with `likelihood` auto. No more
    than 16 GiB are read into memory, and nothing is ever unpickled.

    Raises `IWAEError` where the file is anything else.
    """
    path, reading = Path(path), reading or Reading()
    shown = one_line(path)
    if not os.path.exists(path):
        raise IWAEError(f"there is no file {shown}; give {ANY_FILE}")
    if not os.path.isfile(path) and not os.path.isdir(path):
        raise IWAEError(f"{shown} is not an ordinary file; give {ANY_FILE}")
    try:
        if os.path.isdir(path):
            dataset, digest = _read_folder(path, reading)
        else:
            dataset, digest = _read(path, reading), digest_of([path])
    except (BadFileError, IWAEError) as error:
        raise IWAEError(f"cannot use {shown} as data: {error}") from error
    except OSError as error:
        raise IWAEError(f"cannot read {shown}: {error.strerror or one_line(error)}; check the file") from error
    except MemoryError as error:
        raise IWAEError(f"{shown} does not fit into memory; use fewer examples or uint8 values") from error
    files = (DataFile(path.name, f"sha256:{digest}", None),)
    return replace(dataset, name=os.path.abspath(path), files=files, shuffled=reading.shuffled is not False)


def _read(path: Path, reading: Reading) -> Dataset:
    if pieces.is_large(path):
        return pieces.load_in_pieces(path, reading, lambda count: _split(count, reading))
    if tables.is_table(path):
        frame = tables.read_table(path)
        columns = tables.learn_columns({"train": frame}, reading)
        return of_table(_split_array(tables.to_rows(frame, columns), reading), columns)
    if path.suffix.lower() == ".h5ad":
        rows, columns = sparse.read_h5ad(path, reading)
        return of_table(_split_array(rows, reading), columns)
    if path.name.lower().endswith(images.IDX_SUFFIXES):
        return of_splits(_split_array(images.read_images([path]), reading), reading)
    if path.suffix.lower() == ".npy":
        return of_splits(_split_array(read_npy(path), reading), reading)
    return of_splits(_read_archive(path, reading), reading)


def _read_folder(path: Path, reading: Reading) -> tuple[Dataset, str]:
    files = images.image_files(path)
    splits = {name: images.read_images(paths) for name, paths in files.items()}
    if "all" in splits:
        splits = _split_array(splits["all"], reading)
    else:
        _check_splits(splits, reading)
    return of_splits(splits, reading), digest_of([path for paths in files.values() for path in paths])


def digest_of(paths: Sequence[Path]) -> str:
    """sha256 of a file's content, or of that of several."""
    digests = []
    for path in paths:
        with path.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _read_archive(path: Path, reading: Reading) -> dict[str, np.ndarray]:
    parts = read_npz(path, ("data", "indices", "indptr", "shape"))
    if len(parts) == 4:
        matrix = sparse.dense(**parts, layout=_sparse_layout(path))
        return _split_array(counts_of_sparse(matrix), reading)
    if {"data", "shape"} <= set(parts):
        raise BadFileError("a sparse matrix that is neither csr nor csc: save matrix.tocsr()")
    found = read_npz(path, sum(KEYS.values(), ()))
    arrays = {name: found[key] for name, keys in KEYS.items() for key in keys if key in found}
    _check_splits(arrays, reading)
    return arrays


def _sparse_layout(path: Path) -> str:
    """What SciPy says of the matrix beside it, in a few letters."""
    with zipfile.ZipFile(path) as archive, archive.open("format.npy") as stream:
        return stream.read(512)[-3:].decode("ascii", "replace")


def _check_splits(arrays: Mapping[str, np.ndarray], reading: Reading) -> None:
    missing = [key for key in ("train", "test") if key not in arrays]
    if missing:
        raise BadFileError(f"it has no array {' and no array '.join(repr(key) for key in missing)}; add it")
    if reading.split_seed:
        raise BadFileError(f"it has splits of its own, and `split_seed` {reading.split_seed} was given: leave it out")
    for name, array in arrays.items():
        if array.ndim and array.size == 0:
            raise BadFileError(f"'{name}' is empty (shape {array.shape}); give it examples or leave it out")


def _split_array(array: np.ndarray, reading: Reading) -> dict[str, np.ndarray]:
    if not array.ndim:
        raise BadFileError("a single number, expected rows of numbers")
    return {name: array[rows] for name, rows in _split(len(array), reading).items()}


def _split(count: int, reading: Reading) -> dict[str, np.ndarray]:
    """The numbers of the rows of every split."""
    if count < _MIN_ROWS:
        raise BadFileError(f"{count} rows are too few to be split, at least {_MIN_ROWS} are needed")
    held_out, rows = count // 10, np.arange(count)
    if reading.shuffled is not False:
        rows = np.random.RandomState(reading.split_seed).permutation(count)
    train, valid, test = np.split(rows, [count - 2 * held_out, count - held_out])
    return {"train": train, "valid": valid, "test": test}
