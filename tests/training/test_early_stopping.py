"""Training until held-out rows say that it is enough: steps are counted by how far weights move."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import iwae
from iwae.estimators.objective import make_estimator
from iwae.training.early_stopping import fit_until
from iwae.training.loop import Divergence
from iwae.training.optim import Directions

ROWS = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
ESTIMATOR = make_estimator("iwae:dreg", k=2)
UPWARDS: Any = Directions(
    lambda params: optax.EmptyState(), lambda updates, state, params=None: (_ones(updates), state)
)
"""Moves every weight by the learning rate."""
HOW: dict[str, Any] = {"learning_rate": 0.001, "batch_size": 8}


def _ones(updates: Any) -> Any:
    return jax.tree.map(jnp.ones_like, updates)


@pytest.fixture
def model():
    data = iwae.Dataset.from_arrays(ROWS, likelihood="gaussian")
    return iwae.create_model(data, iwae.Architecture(2, latent=(1,), hidden=((),)), seed=0)


def moved(before: Any, after: Any) -> float:
    """How far the weights moved, in learning rates."""
    return float(jnp.mean(after.decoder[0].outputs.weight - before.decoder[0].outputs.weight)) / 0.001


def test_training_goes_back_to_the_best_model_with_a_smaller_rate(model):
    scores = [1.0, 2.0, 3.0, 0.0, 0.0, 4.0, 0.0, math.nan, 0.0, 0.0]
    given = iter(scores)
    best, found = fit_until(model, ROWS, lambda _: next(given), ESTIMATOR, UPWARDS, **HOW, max_rounds=20, patience=2)
    np.testing.assert_array_equal(found, scores)
    # Three rounds at the rate, and one at a quarter, of 20 steps each.
    assert moved(model, best) == pytest.approx(3 * 20 + 20 / 4, rel=1e-3)


def test_a_round_of_many_rows_is_one_pass_over_them(model):
    many = np.tile(ROWS, (7, 1))
    best, found = fit_until(model, many, lambda _: 0.0, ESTIMATOR, UPWARDS, **HOW, max_rounds=1, patience=2)
    assert found == [0.0]
    assert moved(model, best) == pytest.approx(40, rel=1e-3)


def test_what_diverges_at_once_is_an_error(model):
    wild: Any = {**HOW, "learning_rate": 1e30}
    with pytest.raises(Divergence, match="smaller `learning_rate`"):
        fit_until(model, ROWS, lambda _: 0.0, ESTIMATOR, UPWARDS, **wild, max_rounds=5, patience=2)
