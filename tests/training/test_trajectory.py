"""The paper's schedule on MNIST beside what the paper's own program reaches: one layer, k = 1, delayed moments."""

import numpy as np
import pytest

from iwae.data import load_dataset
from iwae.errors import IWAEError
from iwae.estimators.objective import make_estimator
from iwae.evaluation.likelihood import likelihoods
from iwae.training.loop import create_model, train
from iwae.training.optim import paper_adam
from iwae.training.schedule import make_schedule
from iwae.training.step import TrainState

# Test L_100 of the paper's program, after its three first stages and three starts.
PROGRAM = (98.56, 98.69, 98.69)
# Of this one, seeds 0 to 2: 98.44, 98.35 and 98.56; with current moments and seed 0 98.04. On the first 2,000 images.
EPOCHS = {1: 124.9, 4: 106.25}


@pytest.mark.slow
def test_thirteen_epochs_come_to_what_the_papers_program_comes_to():
    """About five minutes on two free cores. Rounding makes trajectories differ as seeds do, by some 0.1 nats."""
    try:
        data = load_dataset("mnist", obtain=False)
    except IWAEError as error:
        pytest.skip(str(error))
    optimizer = paper_adam()
    state = TrainState.create(create_model(data, seed=0), optimizer, seed=0)
    found, bounds = {}, []
    for progress in train(state, data, make_schedule("paper", 3), make_estimator("elbo"), optimizer):
        if progress.epoch_done:
            bounds.append(progress.bound)
        if progress.stage_done:
            examples = 2000 if progress.epoch + 1 in EPOCHS else None
            model = progress.state.model
            found[progress.epoch + 1] = likelihoods(model, data, num_samples=100, max_examples=examples).nll
    assert np.all(np.diff(bounds) > 0)
    for epoch, expected in EPOCHS.items():
        assert found[epoch] == pytest.approx(expected, abs=0.5)
    assert found[13] == pytest.approx(np.mean(PROGRAM), abs=0.4)
