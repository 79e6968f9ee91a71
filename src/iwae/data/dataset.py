"""A dataset in memory: three splits of vectors, what kind of data they are, and where they came from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from iwae.data.files import BadFileError
from iwae.data.values import pack
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

    `train`, `valid` and `test` are `[examples, dim]` arrays as they are stored; `valid` and `test` may have no rows.
    `likelihood` says what kind of data they are: a name of `iwae.models.likelihoods`, or a `Likelihood` object.

    For the Bernoulli likelihood, `array * scale` is the probability that a pixel is 1; rows are `uint8` where that is
    lossless and `float32` otherwise. `binary` says that every value is already 0 or 1, so that nothing is drawn (the
    fixed binarization); otherwise each use draws a new binary vector from these probabilities.
    `image_shape` is `(height, width)` where the vectors are images, row by row, and None otherwise.
    `name` is `mnist`, `binfixmnist`, `omniglot`, or the absolute path of the user's own file.
    `shuffled` says that training takes the rows in a new order in each epoch; otherwise it takes them as they are.
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    scale: float
    binary: bool
    image_shape: tuple[int, int] | None
    files: tuple[DataFile, ...]
    likelihood: Any = "bernoulli"
    shuffled: bool = False

    @classmethod
    def from_arrays(cls, train: Any, test: Any = None, valid: Any = None, *, likelihood: Any = None) -> "Dataset":
        """A dataset of arrays in memory: `[n, dim]`, `[n, height, width]` or these with one channel, `[n, h, w, 1]`.

        `likelihood` is a name or an object (see `iwae.models.likelihoods`). By default it is Bernoulli, for numbers in
        [0, 1], bits, or uint8 grey values from 0 to 255. Training takes the rows in a new order in each epoch.

        Raises IWAEError for arrays of other shapes or of values that the likelihood does not score.
        """
        given = {"train": train, "valid": valid, "test": test}
        arrays = {name: np.asarray(array) for name, array in given.items() if array is not None and len(array)}
        if "train" not in arrays:
            raise IWAEError("`train` has no rows: give at least one example")
        shapes = {name: _example_shape(name, array) for name, array in arrays.items()}
        for name, shape in shapes.items():
            if shape != shapes["train"]:
                raise IWAEError(f"the examples of `train` have shape {shapes['train']}, those of `{name}` {shape}")
        rows = {name: array.reshape(len(array), -1) for name, array in arrays.items()}
        scale, binary = 1.0, False
        if likelihood in (None, "bernoulli"):
            try:
                rows, scale, binary = pack(rows)
            except BadFileError as error:
                advice = "" if likelihood else "; other numbers need another `likelihood`, such as 'gaussian'"
                raise IWAEError(f"{error}{advice}") from None
        else:
            rows = {name: _compact(array) for name, array in rows.items()}
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in rows.values())).hexdigest()
        empty, shape = rows["train"][:0], shapes["train"]
        return cls(
            "array",
            rows["train"],
            rows.get("valid", empty),
            rows.get("test", empty),
            scale,
            binary,
            (shape[0], shape[1]) if len(shape) == 2 else None,
            (DataFile("array", f"sha256:{digest}", None),),
            likelihood or "bernoulli",
            shuffled=True,
        )

    @property
    def dim(self) -> int:
        """Number of visible units."""
        return self.train.shape[1]

    @property
    def mark(self) -> Mark:
        """`verified`, `unverified` (usable, but not the published file) or `own` (the user's data)."""
        states = [file.verified for file in self.files]
        if any(state is False for state in states):
            return "unverified"
        return "own" if any(state is None for state in states) else "verified"

    def split(self, name: Split) -> np.ndarray:
        """The `[examples, dim]` array of one split, in its stored type."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]


def _example_shape(name: str, array: np.ndarray) -> tuple[int, ...]:
    shape = array.shape[1:-1] if array.ndim == 4 and array.shape[-1] == 1 else array.shape[1:]
    if len(shape) not in (1, 2) or 0 in shape:
        raise IWAEError(
            f"`{name}` has shape {array.shape}, expected [n, dim], [n, height, width] or [n, height, width, 1]"
        )
    return shape


def _compact(array: np.ndarray) -> np.ndarray:
    """Floating point numbers as float32, others as they are."""
    return array.astype(np.float32) if array.dtype.kind == "f" else array
