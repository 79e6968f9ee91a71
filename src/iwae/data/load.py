"""Datasets by name: find their files, obtain what is missing, verify everything, make the splits."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from iwae.data.catalog import PUBLISHED, Published
from iwae.data.columns import AUTO, Reading
from iwae.data.dataset import DataFile, Dataset
from iwae.data.files import (
    ENVIRONMENT_VARIABLE,
    BadFileError,
    CanonicalFile,
    content_checksum,
    find,
    one_line,
    read_content,
    search_directories,
)
from iwae.data.own import ANY_FILE, is_own, load_own
from iwae.data.sources import FetchError, ProgressCallback
from iwae.errors import IWAEError
from iwae.io.files import remove_leftovers, write_atomically

State = Literal["verified", "unverified", "missing", "corrupt"]

LOCK_SECONDS = 3600.0


@dataclass(frozen=True)
class FileStatus:
    """One file of a published dataset: its path below a datasets directory, where it was found, its state."""

    relative: str
    path: Path | None
    state: State


@dataclass(frozen=True)
class DatasetStatus:
    """What `iwae data` lists of one published dataset.

    `sizes` are the numbers of training, validation and test examples. `state` is that of the worst file:
    `corrupt`, `missing`, `unverified` (usable, but not the published file) or `verified`. `directories` were
    searched in this order. `advice` is one line that says what to do; it is empty where all is well.
    """

    name: str
    paper_name: str
    description: str
    sizes: tuple[int, int, int]
    files: tuple[FileStatus, ...]
    state: State
    directories: tuple[Path, ...]
    advice: str


def canonical_name(name: str) -> str:
    """The one name a dataset goes by: `mnist`, `binfixmnist` or `omniglot`, or the absolute path of own data.

    The paper's spellings (`MNIST`, `BinFixMNIST`, `OMNI`) are accepted, in upper or lower case. What ends as
    files of own data do (`.npz`, `.csv` and so on) is a path; whether that file exists shows when it is loaded. So is
    the name of a folder that is there.
    Raises `IWAEError` for anything else.
    """
    for published in PUBLISHED.values():
        if name.lower() in (published.name, published.paper_name.lower()):
            return published.name
    if "\0" not in name:
        path = os.path.abspath(os.path.expanduser(name))
        if is_own(name) or (name and os.path.isdir(path)):
            return path
    raise IWAEError(f"unknown dataset '{one_line(name)}'; expected {', '.join(PUBLISHED)}, or {ANY_FILE}")


def load_dataset(
    name: str,
    *,
    directory: str | Path | None = None,
    default_directory: str | Path | None = None,
    obtain: bool = True,
    progress: ProgressCallback | None = None,
    reading: Reading | None = None,
) -> Dataset:
    """A dataset in memory, every published file of it verified.

    `name` is anything that `canonical_name` takes. Files are looked for in the `search_directories`; what is
    missing is obtained first unless `obtain` is false. Those of the paper are 28x28 images:

    - `mnist`: 59,600 / 400 / 10,000 grey images; the last 400 training images are the validation split.
    - `binfixmnist`: 50,000 / 10,000 / 10,000 binary images.
    - `omniglot`: 23,000 / 1,345 / 8,070 grey images; the 24,345 training images are permuted by
      `numpy.random.RandomState(123)` and the last 1,345 are the validation split. A file with another
      checksum but the right layout is used and marked `verified=False`.

    For custom data see `iwae.data.own.load_own`; of a published dataset `reading` can choose another likelihood, and
    say that training takes the rows in a new order in each epoch, where by default it keeps the paper's. The arrays are
    read-only.
    Raises `IWAEError` where a file is missing, cannot be obtained, is corrupt, or is not usable.
    """
    key = canonical_name(name)
    if key not in PUBLISHED:
        dataset = load_own(key, reading)
    else:
        directories = search_directories(directory, default_directory)
        dataset = _load_published(PUBLISHED[key], directories, obtain=obtain, progress=progress)
        dataset = replace(dataset, shuffled=reading is not None and bool(reading.shuffled))
        if reading is not None and reading.likelihood != AUTO:
            dataset = replace(dataset, likelihood=reading.likelihood)
    for array in (dataset.train, dataset.valid, dataset.test):
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    return dataset


def obtain(
    name: str,
    *,
    directory: str | Path | None = None,
    default_directory: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> list[Path]:
    """Download what is missing of a published dataset, verify all of it, and return the paths of its files.

    Downloads are stored in the first of the `search_directories`. `progress` is called with what is being
    fetched, the bytes done, and the total where it is known. Several processes may do this at once.
    Raises `IWAEError` where no source gives a file, where one that is there is corrupt, and for own data.
    """
    key = canonical_name(name)
    if key not in PUBLISHED:
        raise IWAEError(
            f"'{one_line(name)}' is your own file, there is nothing to obtain; give one of {', '.join(PUBLISHED)}"
        )
    published = PUBLISHED[key]
    paths = _paths(published, search_directories(directory, default_directory), obtain=True, progress=progress)
    for file, path in zip(published.files, paths, strict=True):
        _read(published, file, path)
    return paths


def dataset_status(
    *, directory: str | Path | None = None, default_directory: str | Path | None = None
) -> list[DatasetStatus]:
    """What there is of each published dataset: every file found is read and verified, none is downloaded."""
    directories = search_directories(directory, default_directory)
    return [_status(published, directories) for published in PUBLISHED.values()]


def _load_published(
    published: Published, directories: list[Path], *, obtain: bool, progress: ProgressCallback | None
) -> Dataset:
    paths = _paths(published, directories, obtain=obtain, progress=progress)
    contents, files = [], []
    for file, path in zip(published.files, paths, strict=True):
        content, data_file = _read(published, file, path)
        contents.append(content)
        files.append(data_file)
    try:
        splits, scale, binary = published.build(contents)
    except BadFileError as error:
        raise IWAEError(f"{', '.join(one_line(path) for path in paths)}: {error}; delete or replace it") from error
    return Dataset(
        name=published.name,
        train=splits["train"],
        valid=splits["valid"],
        test=splits["test"],
        scale=scale,
        binary=binary,
        image_shape=published.image_shape,
        files=tuple(files),
        likelihood=published.likelihood,
    )


def _read(published: Published, file: CanonicalFile, path: Path) -> tuple[bytes, DataFile]:
    """A found file's content and record; raises `IWAEError` where it is not usable."""
    try:
        content = read_content(path, file.max_bytes)
        found = content_checksum(file, content)
        verified = found == file.checksum
        if not verified:
            if published.check is None:
                raise BadFileError(f"its content has checksum {found}, expected {file.checksum}")
            published.check(content)
    except BadFileError as error:
        raise IWAEError(
            f"{one_line(path)} is corrupt: {error}; "
            f"delete or replace it (`iwae data {published.name}` obtains it again)"
        ) from error
    return content, DataFile(file.name, found, verified)


def _status(published: Published, directories: list[Path]) -> DatasetStatus:
    files, problems = [], []
    for file in published.files:
        status, problem = _file_status(published, file, directories)
        files.append(status)
        problems += [problem] if problem else []
    order: tuple[State, ...] = ("corrupt", "missing", "unverified", "verified")
    worst = min((status.state for status in files), key=order.index)
    advice = ""
    if worst == "corrupt":
        advice = problems[0]
    elif worst == "missing":
        by_hand = _by_hand(_missing(published, directories), directories[0])
        advice = f"run `iwae data {published.name}`, or {by_hand}"
    elif worst == "unverified":
        advice = "usable, but not the published file: do not compare figures from it with the paper's"
    return DatasetStatus(
        name=published.name,
        paper_name=published.paper_name,
        description=published.description,
        sizes=published.sizes,
        files=tuple(files),
        state=worst,
        directories=tuple(directories),
        advice=advice,
    )


def _file_status(published: Published, file: CanonicalFile, directories: list[Path]) -> tuple[FileStatus, str | None]:
    """A file's status and, where it is corrupt, the line that says so."""
    path = find(file, directories)
    if path is None:
        return FileStatus(file.relative, None, "missing"), None
    try:
        _, record = _read(published, file, path)
    except IWAEError as error:
        return FileStatus(file.relative, path, "corrupt"), str(error)
    return FileStatus(file.relative, path, "verified" if record.verified else "unverified"), None


def _missing(published: Published, directories: Sequence[Path]) -> list[CanonicalFile]:
    return [file for file in published.files if find(file, directories) is None]


def _by_hand(files: Sequence[CanonicalFile], directory: Path) -> str:
    wanted = ", ".join(f"{one_line(directory / file.relative)}[.gz]" for file in files)
    return f"put by hand {wanted}, or set {ENVIRONMENT_VARIABLE} to the directory that has {files[0].relative}"


def _paths(
    published: Published, directories: list[Path], *, obtain: bool, progress: ProgressCallback | None
) -> list[Path]:
    """Where the dataset's files are, after those missing were fetched (if `obtain` says so)."""
    missing = _missing(published, directories)
    if missing and obtain:
        _fetch(published, directories, progress or _ignore)
        missing = _missing(published, directories)
    if missing:
        names = ", ".join(file.name for file in missing)
        searched = ", ".join(one_line(path) for path in directories)
        raise IWAEError(
            f"{published.name}: {names} not found in {searched}; "
            f"run `iwae data {published.name}`, or {_by_hand(missing, directories[0])}"
        )
    found = [find(file, directories) for file in published.files]
    return [path for path in found if path is not None]


def _ignore(what: str, done: int, total: int | None) -> None:
    """No progress is wanted."""


def _fetch(published: Published, directories: list[Path], progress: ProgressCallback) -> None:
    """Fetch the missing files into the first directory, each from the first source that has it right."""
    import filelock

    target = directories[0]
    try:
        target.mkdir(parents=True, exist_ok=True)
        # Another process may be at it: wait, then look again what is still missing.
        with filelock.FileLock(target / f".{published.name}.lock", timeout=LOCK_SECONDS):
            _fetch_locked(published, directories, progress)
    except filelock.Timeout as error:
        raise IWAEError(
            f"{published.name}: another process has been obtaining it for {LOCK_SECONDS:g} s "
            f"({one_line(error.lock_file)} is locked); wait for it or end it"
        ) from error
    except OSError as error:
        raise IWAEError(
            f"cannot store {published.name} in {one_line(target)}: {error.strerror or one_line(error)}; "
            f"choose another directory, with the option or with {ENVIRONMENT_VARIABLE}"
        ) from error


def _fetch_locked(published: Published, directories: list[Path], progress: ProgressCallback) -> None:
    failures = []
    for source in published.sources:
        missing = _missing(published, directories)
        if not missing:
            return
        try:
            for file, content in source.fetch(missing, progress):
                if content_checksum(file, content) != file.checksum:
                    raise FetchError(f"{file.name} has another checksum than the published one")
                path = directories[0] / file.relative
                path.parent.mkdir(parents=True, exist_ok=True)
                remove_leftovers(path.parent)
                write_atomically(path, content)
        except FetchError as error:
            failures.append(f"{source.label}: {error}")
    missing = _missing(published, directories)
    if missing:
        names = ", ".join(file.name for file in missing)
        raise IWAEError(
            f"{published.name}: could not obtain {names} ({'; '.join(failures)}); {_by_hand(missing, directories[0])}"
        )
