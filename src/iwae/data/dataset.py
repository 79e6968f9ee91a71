"""A dataset in memory: three splits of vectors, what kind of data they are, and where they came from."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from iwae.data.columns import (
    AUTO,
    Column,
    Reading,
    check_values,
    description,
    kind_of_array,
    kind_of_counts,
    with_total,
)
from iwae.data.disk_rows import DiskRows, sample_of
from iwae.data.files import BadFileError
from iwae.data.pictured import pictured
from iwae.data.values import OutOfRangeError, check_grey, counts_of_sparse, pack
from iwae.errors import IWAEError

Split = Literal["train", "valid", "test"]
Mark = Literal["verified", "unverified", "own"]


def shown_name(name: str, mark: str | None) -> str:
    """A dataset's name as figures from it are to be called.

    One's own data go by their file's name. An OMNIGLOT file that is not the published one was rebuilt from the
    drawings, and its figures can't be compared with those of the original.
    """
    if mark != "unverified":
        return Path(name).name
    return "OMNIGLOT (rebuilt)" if name == "omniglot" else f"{Path(name).name} (unverified)"


@dataclass(frozen=True)
class DataFile:
    """One file a dataset was read from.

    `name` is the file's own name, without its directory. `checksum` is `sha256:<hex>` (or `git-blob:<hex>`)
    of the canonical, uncompressed content; `verified` is whether it equals the published one. A user's own
    file has nothing to be compared with: it is `verified=None`, its checksum is that of the file as it is.
    """

    name: str
    checksum: str
    verified: bool | None


@dataclass(frozen=True)
class Dataset:
    """Three splits of `dim`-dimensional vectors.

    `train`, `valid` and `test` are `[examples, dim]` arrays as they are stored; `valid` and `test` may have no rows;
    of a file that is read in pieces they are `iwae.data.disk_rows.DiskRows`.
    `likelihood` says what kind of data they are: a name of `iwae.models.likelihoods`, one for each column, or a
    `Likelihood` object. `columns` are those of a table.

    For the Bernoulli likelihood, `array * scale` is the probability that a pixel is 1; rows are `uint8` where that is
    lossless and `float32` otherwise. `binary` says that every value is already 0 or 1, so that nothing is drawn (the
    fixed binarization); otherwise each use draws a new binary vector from these probabilities.
    `image_shape` is `(height, width)` where the vectors are images, row by row, `(height, width, 3)` where they have
    colours, and None otherwise.
    `name` is `mnist`, `binfixmnist`, `omniglot`, or the absolute path of the user's own file.
    `shuffled` says that training takes the rows in a new order in each epoch; otherwise it takes them as they are.
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    scale: float
    binary: bool
    image_shape: tuple[int, ...] | None
    files: tuple[DataFile, ...]
    likelihood: Any = "bernoulli"
    shuffled: bool = False
    columns: tuple[Column, ...] = ()

    @classmethod
    def from_arrays(cls, train: Any, test: Any = None, valid: Any = None, *, likelihood: Any = None) -> "Dataset":
        """A dataset of arrays in memory: `[n, dim]`, `[n, height, width]` or these with one channel, `[n, h, w, 1]` or
        `[n, 1, h, w]`, or three, `[n, h, w, 3]`; SciPy's sparse matrices are filled with their zeros, and whole numbers
        in them are counts.

        `likelihood` is a name, a list of names, one a column, or an object (see `iwae.models.likelihoods`). By default
        it is Bernoulli, for numbers in [0, 1], bits, or uint8 grey values from 0 to 255. "auto" decides by the values:
        Bernoulli for these, counts for other whole numbers, Gaussian for real ones; "0=categorical,3=poisson" does so
        for the other columns. Training takes the rows in a new order in each epoch.

        Raises IWAEError for arrays of other shapes or of values that the likelihood does not score.
        """
        given = {"train": train, "valid": valid, "test": test}
        is_sparse = {name for name, array in given.items() if hasattr(array, "toarray")}
        dense = {name: counts_of_sparse(a.toarray()) if name in is_sparse else a for name, a in given.items()}
        arrays = {name: np.asarray(array) for name, array in dense.items() if array is not None and len(array)}
        if "train" not in arrays:
            raise IWAEError("`train` has no rows: give at least one example")
        try:
            found = of_splits(arrays, Reading(likelihood) if isinstance(likelihood, str) else likelihood)
        except BadFileError as error:
            is_other = isinstance(error, OutOfRangeError) and not likelihood
            advice = "; other numbers need another `likelihood`, such as 'gaussian'" if is_other else ""
            raise IWAEError(f"{error}{advice}") from None
        return found

    @classmethod
    def from_frame(
        cls,
        train: Any,
        test: Any = None,
        valid: Any = None,
        *,
        likelihood: str = AUTO,
        columns: Sequence[str] = (),
        target: Sequence[str] = (),
    ) -> "Dataset":
        """A dataset of frames of pandas or polars (the extra `tables`): a row an example, of the `columns`, by default
        all but those of `target`. `likelihood` is auto, a kind for all columns, or "age=poisson,sex=categorical" for
        some (see `iwae.data.tables.learn_columns`); what was decided is in `columns` of the dataset.
        `iwae.data.tables.to_rows(frame, data.columns)` gives other rows for the model, and `completed` a frame again.

        Raises IWAEError that names the column for what can't be used.
        """
        from iwae.data import tables

        given = {"train": train, "valid": valid, "test": test}
        frames = {name: frame for name, frame in given.items() if frame is not None and len(frame)}
        if "train" not in frames:
            raise IWAEError("`train` has no rows: give at least one example")
        chosen, left_out = ((names,) if isinstance(names, str) else tuple(names) for names in (columns, target))
        learned = tables.learn_columns(frames, Reading(likelihood, chosen, left_out))
        return of_table({name: tables.to_rows(frame, learned) for name, frame in frames.items()}, learned)

    def __repr__(self) -> str:
        sizes = " / ".join(f"{len(rows):,}" for rows in (self.train, self.valid, self.test))
        shape = f"{' x '.join(map(str, self.image_shape))} pixels" if self.image_shape else f"{self.dim} values"
        name = shown_name(self.name, self.mark)
        return f"Dataset({name}: {sizes} examples to train, validate and test, of {shape}, {self.kind})"

    def _repr_html_(self) -> str:
        return pictured(self)

    @property
    def dim(self) -> int:
        """Number of visible units."""
        return self.train.shape[1]

    @property
    def kind(self) -> str:
        """The name of its likelihood; mixed for a list of them."""
        return self.likelihood if isinstance(self.likelihood, str) else getattr(self.likelihood, "name", "mixed")

    @property
    def mark(self) -> Mark:
        """`verified`, `unverified` (usable, but not the published file) or `own` (the user's data)."""
        states = [file.verified for file in self.files]
        if any(state is False for state in states):
            return "unverified"
        return "own" if any(state is None for state in states) else "verified"

    def description(self) -> list[str]:
        """What own data was taken for, in lines: one a column of a table."""
        if self.mark != "own":
            return []
        rows = sample_of(self.train)
        found = self._kinds_of(rows)
        if isinstance(self.train, DiskRows):
            count, total = len(rows), len(self.train)
            of = "" if count == total else f"; the above is of {count:,} of them, drawn at random"
            found.append(f"{total:,} training rows are read in pieces{of}")
        return found

    def _kinds_of(self, rows: np.ndarray) -> list[str]:
        if self.likelihood == "bernoulli" and not self.columns:
            what = "zeros and ones" if self.binary else "probabilities of ones, drawn anew at every use"
            return [f"{self.dim} values of an example: {what} -> bernoulli"]
        type_of_values = "real" if self.train.dtype.kind == "f" else "integer"
        alike = tuple(Column(str(place), self.kind, type_of_values) for place in range(self.dim))
        return description(rows, self.columns or alike, each=bool(self.columns))

    def split(self, name: Split) -> np.ndarray:
        """The `[examples, dim]` array of one split, in its stored type."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]


def of_splits(arrays: Mapping[str, np.ndarray], how: Any) -> Dataset:
    """The dataset of arrays `train` and, where they are there, `valid` and `test`. `how` is a `Reading`, a likelihood
    object, a list of names, or None for Bernoulli.

    Raises BadFileError and IWAEError for what it can't be made of.
    """
    shapes = {name: _example_shape(name, array) for name, array in arrays.items()}
    for name, shape in shapes.items():
        if shape != shapes["train"]:
            raise BadFileError(f"the examples of `train` have shape {shapes['train']}, those of `{name}` {shape}")
    rows = {name: array.reshape(len(array), -1) for name, array in arrays.items()}
    shape = shapes["train"]
    image_shape = shape if len(shape) > 1 else None
    if how is None:
        check_grey(rows)
        how = Reading("bernoulli")
    if not isinstance(how, Reading):
        return _made({name: compact(array) for name, array in rows.items()}, how, image_shape=image_shape)
    names = [str(column) for column in range(rows["train"].shape[1])]
    kinds = how.kinds(names)
    if how.columns or how.target:
        places = how.chosen(names)
        rows, image_shape = {name: array[:, places] for name, array in rows.items()}, None
        names, kinds = ([given[place] for place in places] for given in (names, kinds))
    if set(kinds) == {AUTO}:
        check_grey(rows)
    if set(kinds) <= {AUTO, "bernoulli"} and len(set(kinds)) == 1 and not how.has_total:
        try:
            packed, scale, binary = pack(rows)
            check_values(rows["train"], [Column(name, "bernoulli", "real") for name in names])
            return _made(packed, "bernoulli", scale=scale, binary=binary, image_shape=image_shape)
        except OutOfRangeError:
            if kinds[0] != AUTO:
                raise
    train = rows["train"]
    if set(kinds) == {AUTO}:
        kinds = [kind_of_array(train)] * len(kinds)
    decide = kind_of_array if train.dtype.kind == "f" else kind_of_counts
    kinds = [decide(train[:, j]) if kind == AUTO else kind for j, kind in enumerate(kinds)]
    type_of_values = "real" if train.dtype.kind == "f" else "integer"
    columns = tuple(Column(name, kind, type_of_values) for name, kind in zip(names, kinds, strict=True))
    check_values(train, columns)
    if how.has_total:
        rows = {name: with_total(array, columns)[0] for name, array in rows.items()}
        columns = with_total(train, columns)[1]
        kinds = [column.kind for column in columns]
    is_alike = len(set(kinds)) == 1
    stored = {name: compact(array) for name, array in rows.items()}
    likelihood = kinds[0] if is_alike else tuple(kinds)
    # With the rows' totals as one column more, rows are no images.
    shape = None if how.has_total else image_shape
    return _made(stored, likelihood, image_shape=shape, columns=() if is_alike else columns)


def of_table(rows: Mapping[str, np.ndarray], columns: tuple[Column, ...]) -> Dataset:
    """The dataset of rows of a table's columns. Raises IWAEError that names a column which can't be learned from."""
    check_values(rows["train"], columns)
    kinds = tuple(column.kind for column in columns)
    is_binary = all(np.isin(array[~np.isnan(array)], (0, 1)).all() for array in rows.values())
    stored = {name: compact(array) for name, array in rows.items()}
    return _made(stored, kinds[0] if len(set(kinds)) == 1 else kinds, binary=is_binary, columns=columns)


def _made(
    rows: Mapping[str, np.ndarray],
    likelihood: Any,
    *,
    scale: float = 1.0,
    binary: bool = False,
    image_shape: tuple[int, ...] | None = None,
    columns: tuple[Column, ...] = (),
) -> Dataset:
    # What the arrays are known by, where no file is read.
    digest = hashlib.sha256()
    for array in rows.values():
        digest.update(np.ascontiguousarray(array).data)
    empty, files = rows["train"][:0], (DataFile("array", f"sha256:{digest.hexdigest()}", None),)
    splits = (rows["train"], rows.get("valid", empty), rows.get("test", empty))
    return Dataset("array", *splits, scale, binary, image_shape, files, likelihood, shuffled=True, columns=columns)


def _example_shape(name: str, array: np.ndarray) -> tuple[int, ...]:
    shape = tuple(array.shape[1:])
    if len(shape) == 3 and 1 in (shape[0], shape[-1]):
        shape = shape[:-1] if shape[-1] == 1 else shape[1:]
    if (len(shape) not in (1, 2) and not (len(shape) == 3 and shape[-1] == 3)) or 0 in shape:
        raise BadFileError(
            f"`{name}` has shape {array.shape}, expected [n, height, width], [n, height, width, 1], [n, 1, height,"
            " width], [n, height, width, 3] or [n, dim]"
        )
    return shape


def compact(array: np.ndarray) -> np.ndarray:
    """Floating point numbers as float32, others as they are, in the machine's order of bytes."""
    return array.astype(np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("="), copy=False)
