"""What a run says of its data, and the data that it was trained on."""

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NotRequired, TypedDict

import numpy as np
from msgspec import Meta

from iwae.data import Dataset, Mark, Split, load_dataset
from iwae.data.catalog import PUBLISHED
from iwae.data.columns import ValueType
from iwae.data.disk_rows import pieces_of
from iwae.errors import IWAEError
from iwae.io.json import Count, Positive, Real
from iwae.runs.reporter import Reporter

if TYPE_CHECKING:
    from iwae.runs.directory import Run

Integer = Annotated[int, Meta(ge=-(2**53), le=2**53)]


class Sizes(TypedDict):
    """Numbers of examples."""

    train: Count
    valid: Count
    test: Count


class DataFileRecord(TypedDict):
    """A file of data: `sha256:<hex>` or `git-blob:<hex>`, and whether it is the published one (null: own data)."""

    name: str
    checksum: str
    verified: bool | None


class ColumnRecord(TypedDict):
    """A column of a table, as `iwae.data.Column`; of numbers the training mean."""

    name: str
    kind: str
    type: ValueType
    levels: NotRequired[list[str | Integer | Real | bool]]
    mean: NotRequired[Real]


class DataRecord(TypedDict):
    """The data of a run, as `data_record` has them; `image_shape` is height and width, and 3 for colours. The kind of
    values is `likelihood`, without it Bernoulli; run.json alone has the columns of a table.
    """

    name: str
    mark: Mark
    examples: Sizes
    dim: Positive
    binary: bool
    image_shape: Annotated[list[Positive], Meta(min_length=2, max_length=3)] | None
    files: list[DataFileRecord]
    likelihood: NotRequired[str]
    columns: NotRequired[list[ColumnRecord]]


def check_data(data: DataRecord) -> None:
    """Raises IWAEError where the parts of a record contradict each other."""
    shape = data["image_shape"]
    if shape is not None and (math.prod(shape) != data["dim"] or shape[2:] not in ([], [3])):
        raise IWAEError(f"images of {' x '.join(map(str, shape))} numbers do not have {data['dim']} dimensions")
    if len(data.get("columns", ())) not in (0, data["dim"]):
        raise IWAEError(f"{len(data.get('columns', ()))} columns are not {data['dim']} dimensions")


def data_record(dataset: Dataset) -> DataRecord:
    """What a run's record says of its data: name, mark, sizes and checksums, and what is not Bernoulli."""
    record: DataRecord = {
        "name": dataset.name,
        "mark": dataset.mark,
        "examples": {"train": len(dataset.train), "valid": len(dataset.valid), "test": len(dataset.test)},
        "dim": dataset.dim,
        "binary": dataset.binary,
        "image_shape": list(dataset.image_shape) if dataset.image_shape else None,
        "files": [{"name": f.name, "checksum": f.checksum, "verified": f.verified} for f in dataset.files],
    }
    if dataset.kind != "bernoulli":
        record["likelihood"] = dataset.kind
    return record


def columns_record(dataset: Dataset) -> dict[str, list[ColumnRecord]]:
    """What a run's record says of a table's columns; nothing for other data."""
    if not dataset.columns:
        return {}
    pieces = [_sums(piece) for piece in pieces_of(dataset.train)]
    sums, counts = (np.sum(own, axis=0) for own in zip(*pieces, strict=True))
    means = sums / np.maximum(counts, 1)
    found: list[ColumnRecord] = []
    for column, mean in zip(dataset.columns, means.tolist(), strict=True):
        what = {"levels": list(column.levels)} if column.levels else {"mean": mean}
        found.append({"name": column.name, "kind": column.kind, "type": column.type, **what})  # pyright: ignore[reportArgumentType]
    return {"columns": found}


def _sums(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every column the sum of its values, and how many there are."""
    with np.errstate(all="ignore"):
        return np.asarray(np.nansum(rows, axis=0, dtype=np.float64)), np.sum(~np.isnan(rows), axis=0)


def check_same_data(run: "Run", dataset: Dataset) -> None:
    """Raises IWAEError when `dataset` is not the one that the run was trained on."""
    for file, recorded in itertools.zip_longest(dataset.files, run.data["files"]):
        if file is None or recorded is None or file.checksum != recorded["checksum"]:
            found = dataset.name if file is None else f"{file.name} ({file.checksum})"
            there = "" if recorded is None else f", {recorded['name']} ({recorded['checksum']})"
            raise IWAEError(
                f"{run.path}: {found} is not the file that this run was trained on{there}: put the old one back, or"
                " train in another `run_dir`"
            )


def say_if_no_sample(dataset: Dataset, split: Split, examples: int | None, reporter: Reporter) -> None:
    """Says so where the first `examples` of a published split are known to be unlike the others."""
    published = PUBLISHED.get(dataset.name)
    if published is None or split not in published.order or (examples or math.inf) >= len(dataset.split(split)):
        return
    first = f"the first {examples:,} {split} examples of {dataset.name}"
    reporter.message(f"Note: {first} are no sample of all: {published.order[split]}.")


def run_dataset(run: "Run", datasets_dir: Path | None, reporter: Reporter, moved_to: Path | None = None) -> Dataset:
    """The data that a run was trained on; `moved_to` is where one's own file is now.

    Raises IWAEError when it can't be had or has changed.
    """
    name, how = str(moved_to or run.config.dataset), {"progress": reporter.obtaining, "reading": run.config.reading}
    dataset = load_dataset(name, directory=datasets_dir, **how)
    check_same_data(run, dataset)
    return dataset
