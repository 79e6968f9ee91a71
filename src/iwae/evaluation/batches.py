"""Rows as they are measured, batch by batch, and the noise of each example."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike

from iwae.arithmetic import standard_arithmetic
from iwae.data.dataset import Dataset, Split
from iwae.data.disk_rows import DiskRows, Rows, pieces_of
from iwae.devices import num_devices, on_every_device, over_devices
from iwae.errors import IWAEError
from iwae.models.likelihoods import BernoulliLikelihood, Likelihood, likelihood_of
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

# The draw that turns grey values into the binary images which are measured is the same for every model.
PREPARATION_SEED = 0
SPLIT_NUMBERS: dict[Split, int] = {"train": 0, "valid": 1, "test": 2}

OnExamples = Callable[[int, int], None]
"""Called with how many examples are done, and of how many."""


def on_data(model: HierarchicalVAE, data: Dataset | ArrayLike, split: Split) -> tuple[HierarchicalVAE, Rows]:
    """The model, on all devices, and stored rows `[n, visible]` that it can score: those of a dataset's split, or an
    array of vectors or images. Where both are Bernoulli, how the rows are stored is for the dataset to say.

    Raises IWAEError as `checked_rows`.
    """
    model = on_every_device(model)
    if not isinstance(data, Dataset):
        return model, checked_rows(model, data)
    if isinstance(model.likelihood, BernoulliLikelihood) and data.likelihood == "bernoulli":
        model = model.with_likelihood(likelihood_of(data))
    return model, checked_rows(model, data.split(split), f"the {split} split of {data.name}")


def checked_rows(model: HierarchicalVAE, rows: ArrayLike | DiskRows, what: str = "`x`") -> Rows:
    """Stored rows `[n, visible]` from an array of vectors or images.

    Raises IWAEError where there are none, where they are of another size than the model, and where its likelihood
    can't score them.
    """
    array: Any = rows if isinstance(rows, DiskRows) else np.asarray(rows)
    if array.ndim not in (2, 3, 4) or array[:1].size == 0:
        raise IWAEError(f"nothing to measure: {what} has no examples of numbers, its shape is {array.shape}")
    if not isinstance(rows, DiskRows):
        array = array.reshape(len(array), -1)
    if array.shape[1] != model.visible:
        raise IWAEError(f"{what} has {array.shape[1]} dimensions, but the model was built for {model.visible}")
    for piece in pieces_of(array):
        model.likelihood.check(piece, what)
    return array


def preparation_key(split: Split = "test") -> Key[Array, ""]:
    """The key into which an example's index is folded for the draw that prepares it."""
    return jax.random.fold_in(purpose_key(PREPARATION_SEED, Purpose.BINARIZE), SPLIT_NUMBERS[split])


@eqx.filter_jit
def prepare_rows(
    likelihood: Likelihood, rows: Array, indices: Int[Array, " batch"], key: Key[Array, ""]
) -> Float[Array, "batch visible"]:
    """Rows as they are scored, each one's draw a function of its index alone."""
    return jax.vmap(lambda row, i: likelihood.prepare(row, jax.random.fold_in(key, i)))(rows, indices)


@standard_arithmetic()
def prepare(model: HierarchicalVAE, data: Dataset | ArrayLike, split: Split = "test") -> Float[Array, "n visible"]:
    """Stored rows as every measurement of the split scores them: grey values binarized once, with a fixed seed.

    Raises IWAEError as `checked_rows`.
    """
    model, array = on_data(model, data, split)
    return prepare_rows(
        model.likelihood, jnp.asarray(np.asarray(array)), jnp.arange(len(array)), preparation_key(split)
    )


def prepared_batches(
    model: HierarchicalVAE, rows: Rows, split: Split, size: int, max_examples: int | None = None, first: int = 0
) -> Iterator[tuple[Array, Array, int, int]]:
    """Batches of the first `max_examples` rows, from number `first` on, as they are scored, always of one shape: on
    each device `[size, visible]`. With the examples' indices, how many of the rows are real, and the number of all
    these examples.
    """
    total = len(rows) if max_examples is None else min(len(rows), max_examples)
    devices, key = num_devices(), preparation_key(split)
    size = min(size, -(-total // devices)) * devices
    for start in range(first, total, size):
        # The last batch is padded with earlier rows, so that one compiled program serves all.
        indices = np.minimum(np.arange(start, start + size), total - 1)
        at = over_devices(indices)
        x = prepare_rows(model.likelihood, over_devices(rows[indices]), at, key)
        yield x, at, min(size, total - start), total - first


@dataclass(frozen=True)
class NoiseLayout:
    """Which of an example's `width` standard normals each stochastic layer takes, by their columns."""

    width: int
    columns: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: HierarchicalVAE, kept: tuple[np.ndarray, ...] | None = None) -> "NoiseLayout":
        """Consecutive columns, layer by layer; with `kept`, those of the units that are left."""
        if kept is None:
            kept = tuple(np.ones(units, bool) for units in model.latent)
        starts = np.cumsum([0, *map(len, kept)])
        columns = tuple(
            tuple(int(start + unit) for unit in np.flatnonzero(mask))
            for start, mask in zip(starts[:-1], kept, strict=True)
        )
        return cls(int(starts[-1]), columns)


def example_noise(
    layout: NoiseLayout, key: Key[Array, ""], indices: Int[Array, " batch"], samples: Int[Array, " k"]
) -> tuple[Float[Array, "k batch _"], ...]:
    """Noise for `HierarchicalVAE.log_weights_at`, each draw a function of the example's index and the sample's
    number alone.
    """
    return noise_of_keys(layout, jax.vmap(lambda i: jax.random.fold_in(key, i))(indices), samples)


@jax.jit
def pair_keys(key: Key[Array, ""], indices: Int[Array, " n"], numbers: Int[Array, " n"]) -> Key[Array, " n"]:
    """A key for each example's index and the number of a chain, a draw or a sample of it."""
    return jax.vmap(lambda i, n: jax.random.fold_in(jax.random.fold_in(key, i), n))(indices, numbers)


def noise_of_keys(
    layout: NoiseLayout, keys: Key[Array, " batch"], samples: Int[Array, " k"]
) -> tuple[Float[Array, "k batch _"], ...]:
    """The same, where each example has its key."""

    def draw(sample: Int[Array, ""], example_key: Key[Array, ""]) -> Float[Array, " units"]:
        return jax.random.normal(jax.random.fold_in(example_key, sample), (layout.width,))

    noise = jax.vmap(lambda s: jax.vmap(lambda e: draw(s, e))(keys))(samples)
    return tuple(noise[..., jnp.asarray(columns)] for columns in layout.columns)
