"""A dataset in memory: three splits of binary or [0, 1] vectors, and where they came from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

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

    `train`, `valid` and `test` are `[examples, dim]` arrays, `uint8` where that is lossless and `float32`
    otherwise; `array * scale` is the probability that a pixel is 1. `valid` may have no rows.
    `binary` says that every value is already 0 or 1, so that nothing is drawn (the fixed binarization);
    otherwise each use draws a new binary vector from these probabilities.
    `image_shape` is `(height, width)` where the vectors are images, row by row, and None otherwise.
    `name` is `mnist`, `binfixmnist`, `omniglot`, or the absolute path of the user's own file.
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    scale: float
    binary: bool
    image_shape: tuple[int, int] | None
    files: tuple[DataFile, ...]

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
