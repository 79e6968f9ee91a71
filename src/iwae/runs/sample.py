"""Rows drawn from a run's model, as the kind of file that its data are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iwae.data import tables
from iwae.data.columns import Column
from iwae.errors import IWAEError, check_count
from iwae.evaluation.visualization import draws, samples
from iwae.figures.grids import sample_grid
from iwae.io.files import check_new, write_arrays, write_atomically
from iwae.models.vae import HierarchicalVAE
from iwae.runs.config import check_seed
from iwae.runs.data import DataRecord

NUM_SAMPLES = 100
SUFFIXES = (".npy", ".png", *tables.SUFFIXES)


def sample_file(
    model: HierarchicalVAE,
    target: Path,
    data: DataRecord,
    columns: Sequence[Column] = (),
    *,
    rows: int = NUM_SAMPLES,
    seed: int = 0,
) -> None:
    """Writes a new file of `rows` draws x ~ p(x), in the units of the data: an array `[rows, visible]` as .npy, or a
    table as .csv, .tsv or .parquet with the names, levels and types of `columns`; or, of images, a .png of the means of
    x given the latents that were drawn. The first rows do not depend on their number.

    Raises IWAEError for other files, for one that is there already, and for a picture of what are no images; OSError
    where it can't be written.
    """
    suffix = target.suffix.lower()
    check_count("rows", rows)
    check_seed(seed)
    if suffix not in SUFFIXES:
        raise IWAEError(f"`output` must be a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file, got {target}")
    if suffix == ".png" and not _is_picture(data):
        raise IWAEError(f"`output` {target} is a picture, and the run's data are no images: give a .csv or .npy file")
    check_new(target)
    if suffix == ".png":
        _write_picture(target, samples(model, rows, seed), data)
    elif suffix == ".npy":
        write_arrays(target, np.save, draws(model, rows, seed))
    else:
        plain = [Column(str(place), data.get("likelihood", "bernoulli"), "real") for place in range(data["dim"])]
        tables.write_table(target, tables.to_frame(draws(model, rows, seed), columns or plain))


def write_samples(
    directory: Path, model: HierarchicalVAE, data: DataRecord, columns: Sequence[Column] = (), seed: int = 0
) -> tuple[Path, Path]:
    """Writes what a run has of 100 samples, and says in which files one looks at them and finds their values: of images
    and vectors of bits `samples.png` and `samples.npy`, both of means; else draws, as `samples.csv` of a table and as
    `samples.npy` of other arrays.
    """
    check_seed(seed)
    is_table = tables.is_table(data["name"])
    values = directory / ("samples.csv" if is_table else "samples.npy")
    if is_table:
        tables.write_table(values, tables.to_frame(draws(model, NUM_SAMPLES, seed), columns))
    elif _is_picture(data):
        means, picture = samples(model, NUM_SAMPLES, seed), directory / "samples.png"
        write_arrays(values, np.save, means)
        _write_picture(picture, means, data)
        return picture, values
    else:
        write_arrays(values, np.save, draws(model, NUM_SAMPLES, seed))
    return values, values


def _is_picture(data: DataRecord) -> bool:
    is_shown = data["image_shape"] is not None or data.get("likelihood", "bernoulli") == "bernoulli"
    return is_shown and not tables.is_table(data["name"])


def _write_picture(path: Path, means: np.ndarray, data: DataRecord) -> None:
    shape = data["image_shape"]
    write_atomically(path, sample_grid(means, tuple(shape) if shape else None))
