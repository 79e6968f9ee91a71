"""Examples that are measured one by one: prepared, and in batches of one shape."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from iwae.data.dataset import Dataset, Split
from iwae.devices import num_devices, over_devices
from iwae.errors import IWAEError
from iwae.evaluation.batches import on_data, preparation_key, prepare_rows
from iwae.models.likelihoods import Likelihood
from iwae.models.vae import HierarchicalVAE

EXAMPLES_AT_ONCE = 64
"""On each device."""


def examples_at_once() -> int:
    """How many examples a batch has on all devices."""
    return EXAMPLES_AT_ONCE * num_devices()


def prepared(
    model: HierarchicalVAE, data: Dataset | ArrayLike, split: Split, indices: Sequence[int] | np.ndarray | None
) -> tuple[HierarchicalVAE, np.ndarray, np.ndarray]:
    """The model, the rows `indices` of data (by default all) as they are scored, float32 `[n, visible]`, and `indices`.

    Raises IWAEError for rows that the model can't score, and indices that are not of them.
    """
    model, rows = on_data(model, data, split)
    numbers = np.arange(len(rows)) if indices is None else np.asarray(indices)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers):
        raise IWAEError(f"`indices` must be one or more integers, got {indices!r:.100}")
    if numbers.min() < 0 or numbers.max() >= len(rows):
        raise IWAEError(
            f"`indices` must be from 0 to {len(rows) - 1}, the rows of the data, got {numbers.min()} to {numbers.max()}"
        )
    return model, prepare_examples(model.likelihood, rows[numbers], numbers, split), numbers


def prepare_examples(
    likelihood: Likelihood, rows: np.ndarray, numbers: np.ndarray, split: Split = "test"
) -> Float[np.ndarray, "n visible"]:
    """Rows `[n, visible]` as they are scored, with the draws of `numbers`; one program for any number of rows."""
    key, x = preparation_key(split), np.zeros(rows.shape, np.float32)
    for batch in example_batches(rows, numbers):
        prepared = prepare_rows(likelihood, batch.x, batch.indices, key)
        x[batch.start : batch.start + batch.real] = np.asarray(prepared)[: batch.real]
    return x


class Batch(NamedTuple):
    """`examples_at_once()` examples, of which the first `real` are not padding, from number `start` of all."""

    x: Array
    indices: Int[Array, " examples"]
    start: int
    real: int

    def every_chain(self, chains: int) -> np.ndarray:
        """Pairs (example in the batch, chain) of the real examples, `[real * chains, 2]`."""
        return np.stack(np.divmod(np.arange(self.real * chains), chains), axis=1)


def example_batches(rows: np.ndarray, indices: np.ndarray) -> Iterator[Batch]:
    """All examples, in batches of one shape: the last is filled up with its own last example."""
    size = examples_at_once()
    for start in range(0, len(rows), size):
        chosen = np.minimum(np.arange(start, start + size), len(rows) - 1)
        real = min(size, len(rows) - start)
        yield Batch(over_devices(rows[chosen]), over_devices(indices[chosen]), start, real)


def log_mean(log_values: np.ndarray) -> np.ndarray:
    """log of the mean of exp over the first axis, in float64; -inf where all are."""
    values = np.asarray(log_values, np.float64)
    peak = np.max(values, axis=0)
    shift = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):
        return shift + np.log(np.mean(np.exp(values - shift), axis=0))
