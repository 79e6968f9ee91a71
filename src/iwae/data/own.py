"""The user's own data: an .npz archive with splits, or a single .npy array."""

import hashlib
import os
from pathlib import Path

import numpy as np

from iwae.data.dataset import DataFile, Dataset
from iwae.data.files import BadFileError, one_line
from iwae.data.formats import read_npy, read_npz
from iwae.data.values import pack
from iwae.errors import IWAEError

SUFFIXES = (".npz", ".npy")

_MIN_ROWS = 10


def is_own(name: str) -> bool:
    """Whether a dataset's name is the path of a user's own file."""
    return name.lower().endswith(SUFFIXES)


def load_own(path: str | Path, *, shuffled: bool = True, split_seed: int = 0) -> Dataset:
    """The dataset in the user's own file.

    An `.npz` archive holds the splits under the keys `train`, `test` and, where wanted, `valid`. An `.npy`
    file holds all examples in one array of at least 10 rows: the last tenth (rounded down) becomes the test split,
    the tenth before it the validation split, and the rest is for training. The rows are permuted first, by
    `numpy.random.RandomState(split_seed)`, unless `shuffled` is false: so that a file whose rows are sorted has
    splits that are alike. Training takes the rows in a new order in each epoch, or in the file's.

    Examples are images `[n, height, width]` or `[n, height, width, 1]`, or vectors `[n, dim]`: floating point
    numbers in [0, 1], booleans or integers 0 and 1, or uint8 grey values from 0 to 255 (taken as such if any
    is above 1). No more than 16 GiB are read, and nothing is ever unpickled.

    Raises `IWAEError` where the file is anything else.
    """
    path = Path(path)
    shown = one_line(path)
    if os.path.isdir(path):
        raise IWAEError(f"{shown} is a directory; give the path of an .npz or .npy file")
    if not os.path.exists(path):
        raise IWAEError(f"there is no file {shown}; give the path of an .npz or .npy file")
    if not os.path.isfile(path):
        raise IWAEError(f"{shown} is not an ordinary file; give the path of an .npz or .npy file")
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        arrays = (
            _read_archive(path)
            if path.suffix.lower() == ".npz"
            else _split_array(read_npy(path), split_seed if shuffled else None)
        )
        image_shape = _image_shape(arrays)
        splits, scale, binary = pack({name: array.reshape(len(array), -1) for name, array in arrays.items()})
    except BadFileError as error:
        raise IWAEError(f"cannot use {shown} as data: {error}") from error
    except OSError as error:
        raise IWAEError(f"cannot read {shown}: {error.strerror or one_line(error)}; check the file") from error
    except MemoryError as error:
        raise IWAEError(f"{shown} does not fit into memory; use fewer examples or uint8 values") from error
    train = splits["train"]
    return Dataset(
        name=os.path.abspath(path),
        train=train,
        valid=splits.get("valid", train[:0]),
        test=splits["test"],
        scale=scale,
        binary=binary,
        image_shape=image_shape,
        files=(DataFile(path.name, f"sha256:{digest}", None),),
        shuffled=shuffled,
    )


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    arrays = read_npz(path, ("train", "valid", "test"))
    missing = [key for key in ("train", "test") if key not in arrays]
    if missing:
        raise BadFileError(f"it has no array {' and no array '.join(repr(key) for key in missing)}; add it")
    return arrays


def _split_array(array: np.ndarray, seed: int | None) -> dict[str, np.ndarray]:
    _check_rank("the array", array)
    if len(array) < _MIN_ROWS:
        raise BadFileError(f"{len(array)} rows are too few to be split, at least {_MIN_ROWS} are needed")
    held_out = len(array) // 10
    rows = np.arange(len(array)) if seed is None else np.random.RandomState(seed).permutation(len(array))
    train, valid, test = np.split(rows, [-2 * held_out, -held_out])
    return {"train": array[train], "valid": array[valid], "test": array[test]}


def _check_rank(what: str, array: np.ndarray) -> None:
    if array.ndim not in (2, 3) and not (array.ndim == 4 and array.shape[-1] == 1):
        raise BadFileError(
            f"{what} has shape {array.shape}, expected [n, height, width], [n, height, width, 1] or [n, dim]"
        )


def _image_shape(arrays: dict[str, np.ndarray]) -> tuple[int, int] | None:
    """The common (height, width) of the splits, None for vectors; raises `BadFileError` where they differ."""
    shapes = {}
    for name, array in arrays.items():
        _check_rank(f"'{name}'", array)
        if array.size == 0:
            raise BadFileError(f"'{name}' is empty (shape {array.shape}); give it examples or leave it out")
        shapes[name] = array.shape[1:3]
    first = shapes["train"]
    for name, shape in shapes.items():
        if shape != first:
            raise BadFileError(f"the examples of 'train' have shape {first}, those of '{name}' {shape}")
    return (first[0], first[1]) if len(first) == 2 else None
