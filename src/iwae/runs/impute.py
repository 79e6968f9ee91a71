"""Files of rows with missing values, completed by a run's model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iwae.data import tables
from iwae.data.columns import Column
from iwae.errors import IWAEError
from iwae.evaluation.imputation import impute, impute_multiple
from iwae.models.vae import HierarchicalVAE
from iwae.runs.evaluate import write_arrays
from iwae.runs.score import read_arrays, read_table


def impute_file(
    model: HierarchicalVAE,
    source: Path,
    target: Path,
    *,
    columns: Sequence[Column] = (),
    draws: int | None = None,
    samples: int = 10_000,
    seed: int = 0,
) -> dict[str, int]:
    """Writes `target` with the rows of `source`, NaN replaced: by their means, or `draws` times by draws, as a first
    axis. Both are .npy files, or both .npz archives with any of train, valid and test; or both are tables, of whose
    `columns` the empty cells are filled, and which with `draws` lie one below the other, after a column of their
    numbers. Returns, of each array or column, how many values were missing.

    Raises IWAEError for other files, rows that the model can't score, and where `target` is `source`; OSError where one
    can't be read or written.
    """
    how = {"draws": draws, "samples": samples, "seed": seed}
    if target.exists() and target.samefile(source):
        raise IWAEError(f"`output` {target} is `input`: what was observed would be lost among what was not")
    if tables.is_table(source) and tables.is_table(target):
        return _impute_table(model, source, target, columns, **how)
    suffix = source.suffix.lower()
    if suffix not in (".npy", ".npz") or target.suffix.lower() != suffix:
        raise IWAEError(
            f"`input` and `output` must both be .npy, both .npz or both .csv, .tsv or .parquet files, got {source.name}"
            f" and {target.name}"
        )
    arrays = read_arrays(source, ("x",) if suffix == ".npy" else ("train", "valid", "test"))
    completed = {name: _completed(model, rows, **how) for name, rows in arrays.items()}
    if suffix == ".npy":
        write_arrays(target, np.save, completed["x"])
    else:
        write_arrays(target, np.savez, **completed)
    return {name: int(np.isnan(rows).sum()) if rows.dtype.kind == "f" else 0 for name, rows in arrays.items()}


def _completed(model: HierarchicalVAE, rows: np.ndarray, *, draws: int | None, samples: int, seed: int) -> np.ndarray:
    if draws is None:
        return impute(model, rows, num_samples=samples, seed=seed)
    return impute_multiple(model, rows, draws, num_samples=samples, seed=seed)


def _impute_table(
    model: HierarchicalVAE, source: Path, target: Path, columns: Sequence[Column], *, draws: int | None, **how: int
) -> dict[str, int]:
    frame, rows = read_table(source, columns)
    filled = _completed(model, rows, draws=draws, **how)
    if draws is None:
        made = tables.completed(frame, columns, filled)
    else:
        made = tables.repeated([tables.completed(frame, columns, each) for each in filled])
    tables.write_table(target, made)
    return {column.name: int(np.isnan(values).sum()) for column, values in zip(columns, rows.T, strict=True)}
