"""Rows that are sent for each chunk of steps train as rows do that are on the device."""

from functools import partial

import jax
import numpy as np
import pytest

import iwae
from iwae.data.columns import Reading
from iwae.data.disk_rows import ENVIRONMENT_VARIABLE, DiskRows
from iwae.evaluation.likelihood import likelihoods
from iwae.training.loop import train_together
from iwae.training.optim import adam
from iwae.training.schedule import Stage
from iwae.training.step import TrainState
from iwae.training.validation import validation_bound


@pytest.mark.parametrize(
    ("shuffled", "seeds"), [(None, (0, 1)), (False, (0,))], ids=["shuffled", "in the file's order"]
)
def test_training_and_measuring_are_the_same(tmp_path, monkeypatch, shuffled, seeds):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "d.npy", rng.normal(3, 2, (331, 4)))
    # Rows of four steps are sent: chunks end where they do.
    monkeypatch.setattr("iwae.training.feed.PIECE", 4 * len(seeds) * 20 * 4 * 4)
    found = []
    for most in ("", "100"):
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, most)
        data = iwae.load_dataset(str(tmp_path / "d.npy"), reading=Reading(shuffled=shuffled))
        assert isinstance(data.train, DiskRows) == bool(most)
        model = iwae.create_model(data, iwae.Architecture(4, (2,), ((4,),)))
        states = [TrainState.create(model, adam(), seed) for seed in seeds]
        estimators = [iwae.make_estimator("iwae", k=2)] * len(seeds)
        steps = []
        for progress in train_together(states, data, (Stage(2, 1e-3),), estimators, adam(), batch_size=20):
            states = [own.state for own in progress]
            steps.append(progress[0].step)
        measured = likelihoods(states[0].model, data, num_samples=5).log_likelihood
        models = [jax.device_get(jax.tree.leaves((state.model, state.optimizer))) for state in states]
        found.append((models, measured, validation_bound(states[-1].model, data, 2)))
        assert not most or max(np.diff(steps)) <= 4
    if shuffled is None:
        jax.tree.map(np.testing.assert_array_equal, *found)
    else:
        # Rows in memory are sliced there, not gathered: XLA rounds the two programs differently.
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *found)
