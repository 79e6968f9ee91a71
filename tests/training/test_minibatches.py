"""The order of the rows: every one is seen in every epoch, by seed, whatever the file's order."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import iwae
import iwae.training.loop as training
from helpers.toy import toy_dataset
from iwae.estimators.objective import Objective, make_estimator
from iwae.models.architecture import Architecture
from iwae.randomness import Purpose, purpose_key
from iwae.training.loop import create_model, train, train_together
from iwae.training.minibatches import epoch_order, steps_per_epoch
from iwae.training.optim import paper_adam
from iwae.training.schedule import Stage
from iwae.training.step import TrainState

SMALL = Architecture(None, (2,), ((3,),))
KEY = purpose_key(0, Purpose.TRAIN)
ELBO = make_estimator(Objective("iwae", k=2))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_an_epoch_has_every_row_and_no_more_repeats_than_fill_it_up(rows, batch_size, epoch):
    if batch_size > rows:
        rows, batch_size = batch_size, rows
    order = np.asarray(epoch_order(KEY, jnp.int32(epoch), num_rows=rows, batch_size=batch_size))
    assert len(order) % batch_size == 0
    assert len(order) - rows < batch_size
    np.testing.assert_array_equal(np.sort(order[:rows]), np.arange(rows))
    # No row is twice in the last minibatch: the beginning is another one.
    assert len(order) == batch_size or len(set(order[-batch_size:])) == batch_size


def test_epochs_and_seeds_have_orders_of_their_own():
    keys = [KEY, KEY, purpose_key(1, Purpose.TRAIN)]
    first, second, other = (
        np.asarray(epoch_order(key, jnp.int32(epoch), num_rows=100, batch_size=20))
        for key, epoch in zip(keys, (0, 1, 0), strict=True)
    )
    assert (first != second).mean() > 0.9
    assert (first != other).mean() > 0.9


def test_the_order_has_a_key_that_no_step_draws_from():
    order = jax.random.key_data(jax.random.fold_in(KEY, jnp.uint32(2**32 - 1)))
    steps = jax.vmap(lambda step: jax.random.key_data(jax.random.fold_in(KEY, step)))(jnp.arange(-1, 4096))
    same = np.all(np.asarray(steps) == np.asarray(order), axis=1)
    assert list(np.flatnonzero(same)) == [0]  # -1 is no step.


def test_a_partial_minibatch_counts_where_rows_are_shuffled():
    dataset = toy_dataset(train=50)
    assert steps_per_epoch(dataset, 20) == 2
    assert steps_per_epoch(replace(dataset, shuffled=True), 20) == 3
    assert steps_per_epoch(replace(dataset, shuffled=True), 25) == 2


def last_state(dataset, seed=0):
    optimizer = paper_adam(20)
    state = TrainState.create(create_model(dataset, SMALL, 0), optimizer, seed)
    *_, progress = train(state, dataset, (Stage(3, 1e-2, None),), ELBO, optimizer)
    return progress.state


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one.model), jax.tree.leaves(other.model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_shuffled_epoch_continues_in_the_middle_with_the_same_bits(monkeypatch):
    dataset = replace(toy_dataset(train=95), shuffled=True)
    whole = last_state(dataset)
    monkeypatch.setattr(training, "FIRST_CHUNK_STEPS", 2)
    monkeypatch.setattr(training, "CHUNK_SECONDS", 0.0)
    optimizer = paper_adam(20)
    state, steps = TrainState.create(create_model(dataset, SMALL, 0), optimizer, 0), 0
    while steps < 15:  # A new call after every chunk, as after an interrupt.
        progress = next(iter(train(state, dataset, (Stage(3, 1e-2, None),), ELBO, optimizer)))
        state, steps = progress.state, progress.step
    assert_same(state, whole)


@pytest.mark.parametrize("as_batch", [False, True])
def test_seeds_together_have_each_its_own_order(as_batch, monkeypatch):
    dataset = replace(toy_dataset(train=95), shuffled=True)
    run = training.run_chunk
    monkeypatch.setattr(training, "run_chunk", lambda *args, **how: run(*args, **{**how, "as_batch": as_batch}))
    optimizer = paper_adam(20)
    states = [TrainState.create(create_model(dataset, SMALL, 0), optimizer, seed) for seed in (0, 1)]
    *_, together = train_together(states, dataset, (Stage(3, 1e-2, None),), [ELBO, ELBO], optimizer)
    for seed, progress in enumerate(together):
        alone = last_state(dataset, seed)
        for a, b in zip(jax.tree.leaves(progress.state.model), jax.tree.leaves(alone.model), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_rows_sorted_by_class_with_a_last_partial_minibatch_are_learnt():
    """39 rows of two halves in the file's order: the last 19, one of the halves, would never be seen."""
    rows = np.repeat([[1] * 8 + [0] * 8, [0] * 8 + [1] * 8], [20, 19], axis=0)
    data = iwae.Dataset.from_arrays(rows, rows[[0, -1]])
    model = iwae.fit(iwae.create_model(data, SMALL), data, ELBO, epochs=400, learning_rate=1e-2, progress=False)
    values = iwae.log_likelihood(model, data.test, num_samples=200)
    np.testing.assert_allclose(values, np.log(0.5), atol=0.5)
