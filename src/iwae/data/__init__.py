"""Datasets: found, obtained, verified, and split as the paper split them.

- `load_dataset` gives a `Dataset` by its name (`mnist`, `binfixmnist`, `omniglot`, or the paper's spellings
  `MNIST`, `BinFixMNIST`, `OMNI`) or by the path of the user's own file.
- `obtain` downloads and verifies without loading; `dataset_status` says what is there, verified or not.
- `search_directories` is where both look; `canonical_name` is how names are understood.

Every failure that a user can mend is an `iwae.errors.IWAEError`.
"""

from iwae.data.columns import Column, Reading
from iwae.data.dataset import DataFile, Dataset, Mark, Split, shown_name
from iwae.data.files import search_directories
from iwae.data.load import (
    DatasetStatus,
    FileStatus,
    canonical_name,
    dataset_status,
    load_dataset,
    obtain,
)
from iwae.data.own import is_own
from iwae.data.sources import ProgressCallback

__all__ = [
    "Column",
    "DataFile",
    "Dataset",
    "DatasetStatus",
    "FileStatus",
    "Mark",
    "ProgressCallback",
    "Reading",
    "Split",
    "canonical_name",
    "dataset_status",
    "is_own",
    "load_dataset",
    "obtain",
    "search_directories",
    "shown_name",
]
