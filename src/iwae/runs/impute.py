"""Files of rows with missing values, completed by a run's model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iwae.data import tables
from iwae.data.columns import Column
from iwae.errors import IWAEError
from iwae.evaluation.imputation import ImputationCheck, check_imputation, impute, impute_multiple
from iwae.io.files import check_new, write_arrays
from iwae.models.vae import HierarchicalVAE
from iwae.runs.data import run_dataset
from iwae.runs.directory import Run
from iwae.runs.reporter import Reporter
from iwae.runs.score import has_other_rows, read_arrays, read_rows, read_table, with_exposure

SPLITS = ("train", "valid", "test")
MOST_CHECKED = 500
FEWEST_HIDDEN = 30


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
    numbers. A row's values depend on `seed` and the row alone. Returns, of each array or column, how many values were
    missing.

    Raises IWAEError for other files, rows that the model can't score, and where `target` is there already; OSError
    where one can't be read or written.
    """
    how = {"draws": draws, "samples": samples, "seed": seed}
    check_new(target)
    if tables.is_table(source) and tables.is_table(target):
        return _impute_table(model, source, target, columns, **how)
    suffix = source.suffix.lower()
    if suffix not in (".npy", ".npz") or target.suffix.lower() != suffix:
        raise IWAEError(
            f"`input` and `output` must both be .npy, both .npz or both .csv, .tsv or .parquet files, got {source.name}"
            f" and {target.name}"
        )
    arrays = read_arrays(source, ("x",) if suffix == ".npy" else SPLITS)
    completed = {}
    for name, rows in arrays.items():
        found = _completed(model, with_exposure(rows, columns), **how)
        completed[name] = found if rows.ndim > 2 else found[..., : rows.shape[1]]
    if suffix == ".npy":
        write_arrays(target, np.save, completed["x"])
    else:
        write_arrays(target, np.savez, **completed)
    return {name: int(np.isnan(rows).sum()) if rows.dtype.kind == "f" else 0 for name, rows in arrays.items()}


def check_file(run: Run, model: HierarchicalVAE, source: Path, *, seed: int = 0) -> tuple[ImputationCheck | None, str]:
    """How good a run's imputations are where the truth is known, and of which rows that is: of the first 500 of
    `source`; or where that is what the run was trained on, of those that it held out. None where fewer than 30 values
    can be hidden.

    Raises IWAEError and OSError as `impute_file`.
    """
    if has_other_rows(run, source):
        what, rows = "of the same rows", read_rows(source, SPLITS, run.columns)
    else:
        data = run_dataset(run, None, Reporter(), moved_to=source)
        rows = np.concatenate([held_out[:MOST_CHECKED] for held_out in (data.test, data.valid)])
        what = "of rows that training held out"
    if rows.dtype.kind != "f" or not len(rows):
        return None, what
    found = check_imputation(model, rows[:MOST_CHECKED], seed=seed)
    return (None if found.hidden < FEWEST_HIDDEN else found), what


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
