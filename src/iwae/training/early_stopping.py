"""Training on a table until rows that were held out say that it is enough."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from iwae.estimators.base import Estimator
from iwae.models.vae import HierarchicalVAE
from iwae.training.loop import Divergence
from iwae.training.optim import Directions
from iwae.training.step import LearningRates, TrainState, run_chunk
from iwae.training.validation import EarlyStopping

STEPS = 20
"""Of a chunk. Its rows have one shape whatever the table's length, so that one compiled program serves all tables of as
many columns."""
CUTS = 2
CUT = 0.25


def fit_until(
    model: HierarchicalVAE,
    rows: np.ndarray,
    score: Callable[[HierarchicalVAE], float],
    estimator: Estimator,
    optimizer: Directions,
    *,
    learning_rate: float,
    batch_size: int,
    max_rounds: int,
    patience: int,
    tolerance: float = 1e-4,
    seed: int = 0,
    callback: Callable[[int, float], None] | None = None,
) -> tuple[HierarchicalVAE, list[float]]:
    """The model of the best `score`, and the scores after every round: one pass over `rows` `[n, visible]` in a new
    order, or 20 steps where that is more.

    After `patience` rounds in which the score did not rise by the relative `tolerance`, training goes back to the best
    model with a quarter of the learning rate, twice, and then ends; so it does where it diverges. `callback` is given
    the number of rounds and the score.

    Raises Divergence where no round was finite.
    """
    best = state = TrainState.create(model, optimizer, seed)
    stopping, cuts, scores = EarlyStopping(patience, tolerance), 0, []
    chunks, batches = max(1, round(len(rows) / (batch_size * STEPS))), _batches(rows, batch_size, seed)
    while len(scores) < max_rounds:
        rates, diverged = LearningRates.constant(learning_rate * CUT**cuts), False
        for _ in range(chunks):
            (state,), bad_steps, _ = run_chunk(
                (state,),
                jnp.asarray(next(batches)),
                rates,
                jnp.int32(STEPS),
                estimators=(estimator,),
                optimizer=optimizer,
                batch_size=batch_size,
            )
            diverged = int(bad_steps[0]) >= 0
            if diverged:
                break
        scores.append(-math.inf if diverged else score(state.model))
        if callback is not None:
            callback(len(scores), scores[-1])
        if stopping.improves(scores[-1]):
            best = state
        elif stopping.is_over or diverged:
            if cuts == CUTS:
                break
            # Steps are counted in whole chunks: a chunk's first step takes the first batch of its rows.
            state, cuts = replace(best, step=jnp.int32(STEPS * chunks * len(scores))), cuts + 1
            stopping.waited = 0
    if not math.isfinite(stopping.best):
        raise Divergence("training diverged in its first rounds: try a smaller `learning_rate`", [best])
    return best.model, scores


def _batches(rows: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """The rows of a chunk's steps, without end: every row once, in a random order, before any comes again."""
    rng, size = np.random.default_rng(seed), batch_size * STEPS
    left = rows[:0]
    while True:
        while len(left) < size:
            left = np.concatenate([left, rows[rng.permutation(len(rows))]])
        yield left[:size]
        left = left[size:]
