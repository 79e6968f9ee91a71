"""What is missing, from what is observed: a completed table, or several.

The method is called MIWAE (Mattei & Frellsen 2019, "MIWAE: deep generative modelling and imputation of incomplete data
sets"). It has nothing to do with the bound `iwae.bounds.miwae`, which Rainforth et al. (2018) gave the same name.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike

from iwae.devices import on_every_device
from iwae.errors import IWAEError
from iwae.evaluation.batches import checked_rows
from iwae.evaluation.examples import example_batches, prepare_examples
from iwae.evaluation.likelihood import check_samples
from iwae.evaluation.posterior import resample
from iwae.evaluation.reconstruction import weighted_means
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

CANDIDATES = 64
"""Draws of each value from which one is taken by its probability of being missing, where that depends on it."""


def impute(
    model: HierarchicalVAE,
    x: ArrayLike,
    *,
    num_samples: int = 10_000,
    seed: int = 0,
    indices: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """The table `x` `[n, visible]` or `[n, height, width]`, its NaN replaced by the mean of what is missing given what
    is observed: single imputation, which has the least squared error.

    The mean is that of the decoder's means at `num_samples` samples of q(h | x), by their self-normalized importance
    weights (Mattei & Frellsen 2019, section 3.3); where the model says how values go missing (not-MIWAE), given that
    they are. In the units of the rows; observed values come back as they were, in the type of `x`. A row's result is a
    function of the model, `seed` and the row alone, and where they are given of its number in `indices`; memory does
    not grow with the number of samples.

    Raises IWAEError for rows that the model can't score, a number of samples outside 1 to 100,000, and `indices` that
    are not one integer of at least 0 a row.
    """
    check_samples("num_samples", num_samples)
    model, rows, numbers, chosen = _incomplete(model, x, indices)
    completed = np.array(x, order="C")
    if len(rows):
        means = weighted_means(model, rows, numbers, num_samples=num_samples, seed=seed, of_missing=True)
        _fill(completed.reshape(len(completed), -1), chosen, means)
    return completed


def impute_multiple(
    model: HierarchicalVAE,
    x: ArrayLike,
    num_draws: int = 20,
    *,
    num_samples: int = 10_000,
    seed: int = 0,
    indices: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """`num_draws` completed tables `[num_draws, n, visible]`, whose missing values are draws from their distribution
    given what is observed: multiple imputation (Rubin 1987), for errors that count what is not known.

    Each draw takes one of `num_samples` samples of q(h | x) with a probability proportional to its importance weight
    (sampling importance resampling), and the missing values from the decoder there. Equal rows get draws of their own,
    in their order. All else is as for `impute`.
    """
    check_samples("num_samples", num_samples)
    check_samples("num_draws", num_draws)
    model, rows, numbers, chosen = _incomplete(model, x, indices, repeats=True)
    completed = np.repeat(np.asarray(x)[None], num_draws, axis=0)
    flat, done = completed.reshape(num_draws, completed.shape[1], -1), 0
    for batch in example_batches(rows, numbers):
        first, *_ = resample(model, batch, num_samples, num_draws, seed)
        drawn = np.asarray(_draw(model, batch.x, first, batch.indices, purpose_key(seed, Purpose.IMPUTE)))
        for table, values in zip(flat, drawn, strict=True):
            _fill(table, chosen[done : done + batch.real], values[: batch.real])
        done += batch.real
    return completed


@dataclass(frozen=True)
class ImputationCheck:
    """How good imputations of `hidden` values are, which were observed and hidden for it.

    `error` is the root mean squared error in units of each column's standard deviation (normalized RMSE) of the
    imputations, and `error_of_means` that of the columns' means. Of columns of categories, `right` is the share of
    levels that come out right, and `right_of_modes` that of the columns' most frequent ones. NaN where nothing of the
    kind was hidden.
    """

    hidden: int
    error: float
    error_of_means: float
    right: float
    right_of_modes: float

    @property
    def is_better(self) -> bool:
        """Whether nothing says that the columns' means and most frequent levels would be as good."""
        return not (self.error >= self.error_of_means or self.right < self.right_of_modes)


def check_imputation(
    model: HierarchicalVAE, x: ArrayLike, *, share: float = 0.2, num_samples: int = 1000, seed: int = 0
) -> ImputationCheck:
    """Hides a `share` of the observed values of rows `[n, visible]`, at random, imputes them, and compares: with the
    values themselves, and with the means or most frequent levels of what is left of their columns. Give rows that the
    model was not trained on. Values that are hidden at random say nothing of values that are missing for a reason.

    Raises IWAEError as `impute` does.
    """
    rows = np.array(checked_rows(model.with_likelihood(replace(model.likelihood, missing=True)), x), np.float64)
    hidden = ~np.isnan(rows) & (np.random.default_rng(seed).random(rows.shape) < share)
    left = np.where(hidden, np.nan, rows)
    # A mean needs some value.
    hidden &= ~np.isnan(left).all(axis=0) & ~model.likelihood.each("is_given", rows.shape[1])
    left = np.where(hidden, np.nan, rows)
    filled = impute(model, left, num_samples=num_samples, seed=seed)
    is_ordered = model.likelihood.each("is_ordered", rows.shape[1])
    errors, rights = [], []
    for column in np.flatnonzero(hidden.any(axis=0)):
        own, seen = hidden[:, column], left[~np.isnan(left[:, column]), column]
        true, found = rows[own, column], filled[own, column]
        if is_ordered[column]:
            spread = rows[~np.isnan(rows[:, column]), column].std()
            if spread > 0:
                errors.append(np.stack([found - true, seen.mean() - true]) / spread)
        else:
            levels, counts = np.unique(seen, return_counts=True)
            rights.append(np.stack([found == true, levels[counts.argmax()] == true]))
    error, error_of_means = np.sqrt(np.mean(np.concatenate(errors, 1) ** 2, 1)) if errors else (np.nan, np.nan)
    right, right_of_modes = np.mean(np.concatenate(rights, 1), 1) if rights else (np.nan, np.nan)
    return ImputationCheck(int(hidden.sum()), float(error), float(error_of_means), float(right), float(right_of_modes))


def numbers_of_content(rows: np.ndarray, *, repeats: bool = False) -> Int[np.ndarray, " n"]:
    """A number for each row `[n, dim]`, made from its values alone, for draws that follow a row to any place and table;
    with `repeats` equal rows get numbers of their own, one after the other. The type of the numbers does not matter.
    """
    values = np.asarray(rows, np.float32)
    # One zero and one NaN of the several that floating point numbers have.
    contents = [row.tobytes() for row in np.where(np.isnan(values), np.float32(np.nan), values + np.float32(0))]
    counts: Counter[bytes] = Counter()
    numbers = []
    for content in contents:
        if repeats:
            counts[content] += 1
        digest = blake2b(content, digest_size=4, salt=counts[content].to_bytes(8, "little")).digest()
        numbers.append(int.from_bytes(digest, "little") >> 1)
    return np.array(numbers, np.int32)


def _incomplete(
    model: HierarchicalVAE, x: ArrayLike, indices: Sequence[int] | np.ndarray | None, *, repeats: bool = False
) -> tuple[HierarchicalVAE, np.ndarray, np.ndarray, np.ndarray]:
    """The model, for rows with NaN; the rows that have any, prepared; their numbers; and their places in `x`."""
    model = on_every_device(model.with_likelihood(replace(model.likelihood, missing=True)))
    rows = np.asarray(checked_rows(model, x))
    numbers = numbers_of_content(rows, repeats=repeats) if indices is None else np.asarray(indices)
    if numbers.shape != (len(rows),) or numbers.dtype.kind not in "iu" or numbers.min() < 0:
        raise IWAEError(f"`indices` must be {len(rows)} integers of at least 0, one a row, got {indices!r:.100}")
    missing = np.isnan(rows).any(axis=1) if rows.dtype.kind == "f" else np.zeros(len(rows), bool)
    chosen = np.flatnonzero(missing)
    if not len(chosen):
        return model, np.zeros((0, model.visible), np.float32), numbers[:0], chosen
    numbers = numbers[chosen]
    prepared = prepare_examples(model.likelihood, rows[chosen].astype(np.float32), numbers)
    return model, prepared, numbers, chosen


def _fill(table: np.ndarray, chosen: np.ndarray, values: np.ndarray) -> None:
    """Puts `values` in the place of the NaN of the `chosen` rows of a table, which is written."""
    rows = table[chosen]
    table[chosen] = np.where(np.isnan(rows), values, rows)


@eqx.filter_jit
def _draw(
    model: HierarchicalVAE,
    x: Float[Array, "batch visible"],
    first: Float[Array, "draws batch units"],
    indices: Int[Array, " batch"],
    key: Key[Array, ""],
) -> Float[Array, "draws batch visible"]:
    """Visible values, in the units of the rows x, drawn at values of h_1."""

    def noise(index: Array, draw: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, index), draw), (model.visible,))

    def table(draw: Array, h: Array) -> Array:
        given = model.likelihood.for_rows(model.decoder[0](h), x)
        own = jax.vmap(noise, in_axes=(0, None))(indices, draw)
        if model.missing is None:
            return given.sample(own)
        candidates = jnp.arange(1, 1 + CANDIDATES)
        others = jax.vmap(jax.vmap(noise, in_axes=(0, None)), in_axes=(None, 0))(indices, draw - 2**20 * candidates)
        return model.missing.sample(given, others, jax.scipy.special.ndtr(own))

    drawn = jax.lax.map(lambda pair: table(*pair), (jnp.arange(len(first)), first))
    return model.likelihood.original(drawn)
