"""Rows that are no part of a run's data, scored by its model."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from iwae.data import Column, Split, tables
from iwae.data.columns import TOTAL, with_total
from iwae.data.files import BadFileError
from iwae.data.formats import read_npy, read_npz
from iwae.data.own import digest_of
from iwae.errors import IWAEError
from iwae.evaluation.annealed import AnnealedLikelihoods, ais
from iwae.evaluation.chains import AnnealedSettings
from iwae.evaluation.likelihood import Likelihoods, likelihoods
from iwae.io.files import check_new, write_arrays, write_atomically
from iwae.runs.checkpoint import Checkpoint
from iwae.runs.directory import Run
from iwae.runs.evaluate import kept_units
from iwae.runs.reporter import Reporter


def has_other_rows(run: Run, path: Path) -> bool:
    """Whether a file is there and, by its checksum, is not what the run was trained on."""
    if not path.is_file():
        return False
    checksum = f"sha256:{digest_of([path])}"
    return checksum not in [file["checksum"] for file in run.data["files"]]


def score_file(
    run: Run,
    checkpoint: Checkpoint,
    path: Path,
    split: Split = "test",
    *,
    samples: int = 5000,
    annealed: AnnealedSettings | None = None,
    seed: int = 0,
    examples: int | None = None,
    output: Path | None = None,
    reporter: Reporter | None = None,
) -> Likelihoods | AnnealedLikelihoods:
    """L_k, or with `annealed` log p(x) by AIS, of the rows of an .npy file, of one split of an .npz archive, or of a
    table with the columns that the run was trained on; `output` is a new file for each row's figures: .npy for the log
    likelihoods, float64 `[n]`, or .csv.

    A row's draws depend on its position in the file and `seed` alone (that of `annealed`, where it is given), also
    those which make grey values binary. Nothing is written into the run.

    Raises IWAEError for other files, for rows that the model can't score, and where `output` is there already; OSError
    where a file can't be read or written.
    """
    reporter = reporter or Reporter()
    if output is not None:
        if output.suffix.lower() not in (".npy", ".csv"):
            raise IWAEError(f"`output` must be an .npy or .csv file, got {output}")
        check_new(output)
    rows = read_rows(path, (split,), run.columns)
    model, gaps = checkpoint.model(), ""
    if count := int(np.isnan(rows).any(axis=tuple(range(1, rows.ndim))).sum()) if rows.dtype.kind == "f" else 0:
        model = model.with_likelihood(replace(model.likelihood, missing=True))
        gaps = f", {count:,} of them with missing values, by those that are there"
    reporter.message(f"{path} is not the data of {run.path}: its {len(rows):,} rows are scored{gaps}.")
    what = "rows, AIS" if annealed else f"rows, k={samples}"

    def on_examples(done: int, total: int) -> None:
        reporter.measuring(what, done, total)

    if annealed is not None:
        count = min(len(rows), examples or len(rows))
        with warnings.catch_warnings():
            # The acceptance says it, to whoever prints the figures.
            warnings.simplefilter("ignore", UserWarning)
            found = ais(model, rows, split, **asdict(annealed), indices=np.arange(count), on_examples=on_examples)
    else:
        how: dict[str, Any] = {"num_samples": samples, "seed": seed, "max_examples": examples, "kept": kept_units(run)}
        found = likelihoods(model, rows, split, **how, on_examples=on_examples)
    if output is not None:
        _write(output, found)
    return found


def read_rows(path: Path, names: tuple[str, ...], columns: Sequence[Column]) -> np.ndarray:
    """The rows of a table, or of the first array of `names` that a file has, for the model of a run with `columns`.

    Raises as `read_table` and `read_arrays`.
    """
    if tables.is_table(path):
        return read_table(path, columns)[1]
    return with_exposure(next(iter(read_arrays(path, names).values())), columns)


def read_table(path: Path, columns: Sequence[Column]) -> tuple[Any, np.ndarray]:
    """A table, and its rows `[n, columns]` for the model of a run that was trained on such.

    Raises IWAEError for a table without these columns or rows, for values that they can't have, and where the run was
    trained on no table.
    """
    if not columns:
        raise IWAEError(f"the run was trained on an array, and {path.name} is a table: give an .npy or .npz file")
    try:
        frame = tables.read_table(path)
        rows = tables.to_rows(frame, columns)
    except (BadFileError, IWAEError) as error:
        raise IWAEError(f"cannot use {path} as data: {error}") from error
    if not len(rows):
        raise IWAEError(f"{path} has no rows")
    return frame, rows


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of rows from an .npz archive, those of `names` that it has, or from an .npy file, by the first name.

    Raises IWAEError for other files and for an archive that has none of them, and OSError where it can't be read.
    """
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz"):
        raise IWAEError(f"{path} is not an .npy or .npz file")
    try:
        arrays = {names[0]: read_npy(path)} if suffix == ".npy" else read_npz(path, names)
    except BadFileError as error:
        raise IWAEError(f"cannot use {path} as data: {error}") from error
    if not arrays:
        raise IWAEError(f"{path} has no array {' or '.join(names)}")
    return arrays


def with_exposure(rows: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """Rows of an array with their total, where the run's last column is that, which no file has."""
    if columns and columns[-1].name == TOTAL and rows.ndim == 2 and rows.shape[1] == len(columns) - 1:
        return with_total(rows, columns[:-1])[0]
    return rows


def _write(output: Path, found: Likelihoods | AnnealedLikelihoods) -> None:
    if output.suffix.lower() == ".npy":
        write_arrays(output, np.save, found.log_likelihood)
        return
    figures = zip(found.log_likelihood.tolist(), found.effective_sample_size.tolist(), strict=True)
    lines = [f"{row},{value!r},{size!r}\n" for row, (value, size) in enumerate(figures)]
    write_atomically(output, "".join(["row,log_likelihood,effective_sample_size\n", *lines]).encode())
