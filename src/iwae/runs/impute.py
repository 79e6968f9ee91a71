"""Files of rows with missing values, completed by a run's model."""

from pathlib import Path

import numpy as np

from iwae.errors import IWAEError
from iwae.evaluation.imputation import impute, impute_multiple
from iwae.models.vae import HierarchicalVAE
from iwae.runs.evaluate import write_arrays
from iwae.runs.score import read_arrays


def impute_file(
    model: HierarchicalVAE,
    source: Path,
    target: Path,
    *,
    draws: int | None = None,
    samples: int = 10_000,
    seed: int = 0,
) -> dict[str, int]:
    """Writes `target` with the rows of `source`, NaN replaced: by their means, or `draws` times by draws, as a first
    axis. Both are .npy files, or both .npz archives with any of train, valid and test. Returns, of each array, how many
    values were missing.

    Raises IWAEError for other files, rows that the model can't score, and where `target` is `source`; OSError where one
    can't be read or written.
    """
    suffix = source.suffix.lower()
    if suffix not in (".npy", ".npz") or target.suffix.lower() != suffix:
        raise IWAEError(
            f"`input` and `output` must both be .npy or both be .npz files, got {source.name} and {target.name}"
        )
    if target.exists() and target.samefile(source):
        raise IWAEError(f"`output` {target} is `input`: what was observed would be lost among what was not")
    arrays = read_arrays(source, ("x",) if suffix == ".npy" else ("train", "valid", "test"))
    completed = {
        name: impute(model, rows, num_samples=samples, seed=seed)
        if draws is None
        else impute_multiple(model, rows, draws, num_samples=samples, seed=seed)
        for name, rows in arrays.items()
    }
    if suffix == ".npy":
        write_arrays(target, np.save, completed["x"])
    else:
        write_arrays(target, np.savez, **completed)
    return {name: int(np.isnan(rows).sum()) if rows.dtype.kind == "f" else 0 for name, rows in arrays.items()}
