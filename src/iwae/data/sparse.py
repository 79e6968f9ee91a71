"""Matrices of which most values are zero: archives of `scipy.sparse.save_npz`, and .h5ad files (AnnData)."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from iwae.data.columns import AUTO, Column, Reading, kind_of_array, with_total
from iwae.data.files import BadFileError, one_line
from iwae.data.formats import MAX_ARRAY_BYTES
from iwae.data.values import counts_of_sparse
from iwae.errors import needs_extra


def dense(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: Iterable[int], layout: str) -> np.ndarray:
    """The array `shape` of a compressed matrix, whose `layout` is csr or csc. Raises BadFileError where parts of it
    contradict each other, or it takes more than 16 GiB.
    """
    from scipy import sparse

    rows, columns = (int(length) for length in shape)
    if layout not in ("csr", "csc"):
        raise BadFileError(f"a sparse matrix of format {layout!r:.20}, expected csr or csc")
    if min(rows, columns) < 1 or rows * columns * data.itemsize > MAX_ARRAY_BYTES:
        raise BadFileError(f"a matrix of {rows} x {columns} is empty or takes more than {MAX_ARRAY_BYTES >> 30} GiB")
    try:
        made = {"csr": sparse.csr_array, "csc": sparse.csc_array}[layout]((data, indices, indptr), (rows, columns))
        # Indices are not trusted: what is written outside of the array would end the process.
        made.check_format(full_check=True)
        return made.toarray()
    except (ValueError, TypeError, IndexError) as error:
        raise BadFileError(f"not a sparse matrix ({one_line(error)[:100]})") from error


def read_h5ad(path: Path, reading: Reading) -> tuple[np.ndarray, tuple[Column, ...]]:
    """The rows (cells) and columns (genes) of an AnnData file: the layer `counts` where it has one, else X. Where they
    are whole numbers they are counts, all of one kind. A column of numbers of the cells, `obs/NAME=exposure` in the
    reading's likelihood, is their exposure.

    Raises BadFileError and IWAEError for other files.
    """
    needs_extra("h5py", "anndata")
    import h5py

    try:
        with h5py.File(path, "r") as file:
            matrix: Any = file["layers/counts"] if "layers/counts" in file else file["X"]
            rows = _matrix(matrix)
            index = file["var"].attrs.get("_index", "_index")
            names = [str(name) for name in file[f"var/{index}"].asstr()[:]]  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
            asked = re.search(r"(?:^|,)\s*(obs/[^,=]+)=exposure\s*(?:,|$)", reading.likelihood)
            exposure = None if asked is None else np.asarray(file[asked[1]], np.float64)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadFileError(f"not an .h5ad file ({one_line(error)[:100]})") from error
    if len(names) != rows.shape[1]:
        raise BadFileError(f"its matrix has {rows.shape[1]} columns, and {len(names)} names for them")
    twice = len(names) - len(set(names))
    if twice:
        raise BadFileError(f"{twice} of its {len(names)} names of columns are there twice: make them unique")
    rows = counts_of_sparse(rows)
    places = reading.chosen(names)
    kinds = reading.kinds(names if asked is None else [*names, asked[1]])[: len(names)]
    usual = kind_of_array(rows) if AUTO in kinds else AUTO
    kinds = [usual if kind == AUTO else kind for kind in kinds]
    columns = [Column(names[place], kinds[place], "real" if rows.dtype.kind == "f" else "integer") for place in places]
    rows = rows[:, places]
    if asked is not None and exposure is not None:
        columns.append(Column(asked[1], "exposure", "real"))
        rows = np.column_stack([rows, exposure])
    return with_total(rows, columns) if reading.has_total else (rows, tuple(columns))


def _matrix(found: Any) -> np.ndarray:
    if "encoding-type" in found.attrs and str(found.attrs["encoding-type"]).endswith("_matrix"):
        layout = str(found.attrs["encoding-type"]).removesuffix("_matrix")
        data, indices, indptr = (found[name][:] for name in ("data", "indices", "indptr"))
        return dense(data, indices, indptr, found.attrs["shape"], layout)
    if found.ndim != 2 or found.size * found.dtype.itemsize > MAX_ARRAY_BYTES:
        raise BadFileError(f"a matrix of shape {found.shape}, expected two dimensions of at most 16 GiB")
    return found[:]
