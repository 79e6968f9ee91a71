"""Several models in one compiled program: each is what it is alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.toy import toy_dataset
from iwae.errors import IWAEError
from iwae.estimators.base import Estimate, Estimator
from iwae.estimators.objective import Objective, make_estimator
from iwae.models.architecture import Architecture
from iwae.training import loop as training
from iwae.training.loop import Divergence, create_model, train, train_together
from iwae.training.optim import paper_adam
from iwae.training.schedule import Stage
from iwae.training.step import LearningRates, TrainState, run_chunk

ARCHITECTURES = {"gaussian": Architecture(6, (4,), ((5,),)), "bernoulli": Architecture(6, (4,), ((),))}
SCHEDULE = (Stage(2, 1e-2), Stage(3, 5e-3))
DATASET = toy_dataset(train=100)
SEEDS = (3, 0, 7)


def start(seed: int, architecture: Architecture = ARCHITECTURES["gaussian"]) -> TrainState:
    return TrainState.create(create_model(DATASET, architecture, seed), paper_adam(), seed)


def leaves(state: TrainState) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state.model, state.optimizer, state.step, state.epoch_bound))]


def last(progress) -> list[TrainState]:
    *_, end = progress
    return [one.state for one in end] if isinstance(end, list) else [end.state]


def test_together_each_is_up_to_rounding_what_it_is_alone():
    estimator, optimizer = make_estimator(Objective("iwae", k=3, estimator="dreg")), paper_adam()
    together = last(train_together([start(seed) for seed in SEEDS], DATASET, SCHEDULE, [estimator] * 3, optimizer))
    for seed, state in zip(SEEDS, together, strict=True):
        (alone,) = last(train(start(seed), DATASET, SCHEDULE, estimator, optimizer))
        for mine, expected in zip(leaves(state), leaves(alone), strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "objective"),
    [
        ("gaussian", Objective("iwae", k=3, estimator="dreg")),
        ("gaussian", Objective("piwae", k=2, m=2)),
        ("bernoulli", Objective("rws", k=3, sleep=0.5)),
    ],
)
def test_as_one_batch_each_is_up_to_rounding_what_it_is_alone(kind, objective):
    """What an accelerator runs."""
    states = tuple(start(seed, ARCHITECTURES[kind]) for seed in SEEDS)
    data, rate, steps = jnp.asarray(DATASET.train), LearningRates.constant(1e-2), jnp.int32(12)
    estimator, how = make_estimator(objective), {"optimizer": paper_adam(), "batch_size": 20}
    batch, bad_steps, bounds = run_chunk(states, data, rate, steps, estimators=(estimator,) * 3, **how, as_batch=True)
    assert list(bad_steps) == [-1] * len(SEEDS)
    for index, state in enumerate(states):
        (alone,), _, (bound,) = run_chunk((state,), data, rate, steps, estimators=(estimator,), **how)
        assert jax.tree.structure(batch[index]) == jax.tree.structure(alone)
        np.testing.assert_allclose(bounds[index], bound, rtol=1e-5)
        for mine, expected in zip(leaves(batch[index]), leaves(alone), strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("as_batch", [False, True])
def test_models_of_several_estimators_are_each_what_they_are_alone(as_batch):
    """Those of one estimator need not stand beside each other, nor have the same numbers."""
    words = ("elbo", "renyi:alpha=0.5", "elbo", "renyi:alpha=-1", "iwae:dreg")
    estimators = tuple(make_estimator(Objective.parse(word, 3)) for word in words)
    states = tuple(start(seed) for seed in range(len(words)))
    data, rate, steps = jnp.asarray(DATASET.train), LearningRates.constant(1e-2), jnp.int32(12)
    how = {"optimizer": paper_adam(), "batch_size": 20}
    trained, bad_steps, bounds = run_chunk(states, data, rate, steps, estimators=estimators, **how, as_batch=as_batch)
    assert list(bad_steps) == [-1] * len(words)
    for index, (state, estimator) in enumerate(zip(states, estimators, strict=True)):
        (alone,), _, (bound,) = run_chunk((state,), data, rate, steps, estimators=(estimator,), **how)
        np.testing.assert_allclose(bounds[index], bound, rtol=1e-5)
        for mine, expected in zip(leaves(trained[index]), leaves(alone), strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5)


def test_every_model_needs_an_estimator():
    with pytest.raises(IWAEError, match="every model needs an estimator, got 2 and 1"):
        next(train_together([start(0), start(1)], DATASET, SCHEDULE, [make_estimator(Objective("elbo"))], paper_adam()))


def test_until_ends_it_at_that_step_and_what_goes_on_is_the_same():
    estimator, optimizer = make_estimator(Objective("iwae", k=2)), paper_adam()
    states = [start(seed) for seed in SEEDS]
    whole = last(train_together(states, DATASET, SCHEDULE, [estimator] * len(states), optimizer))
    part = last(train_together(states, DATASET, SCHEDULE, [estimator] * len(states), optimizer, until=13))
    assert [int(state.step) for state in part] == [13] * len(SEEDS)
    assert list(train_together(part, DATASET, SCHEDULE, [estimator] * 3, optimizer, until=13)) == []
    rest = last(train_together(part, DATASET, SCHEDULE, [estimator] * 3, optimizer))
    for mine, expected in zip(rest, whole, strict=True):
        for one, other in zip(leaves(mine), leaves(expected), strict=True):
            np.testing.assert_array_equal(one, other)


def test_models_at_different_steps_are_refused():
    estimator, optimizer = make_estimator(Objective("iwae", k=2)), paper_adam()
    (ahead,) = last(train(start(0), DATASET, SCHEDULE[:1], estimator, optimizer))
    for states, steps in (([ahead, start(1)], r"\[0, 10\]"), ([], r"\[\]")):
        with pytest.raises(IWAEError, match=f"must stand at one step, got {steps}"):
            next(train_together(states, DATASET, SCHEDULE, [estimator] * len(states), optimizer))


class FailsFrom(Estimator):
    """The ELBO, and NaN for a model whose first weight is large."""

    def __call__(self, model, x, key):
        estimate = make_estimator(Objective("elbo", k=1))(model, x, key)
        return Estimate(jnp.where(model.encoder[0].mean.bias[0] > 5, jnp.nan, estimate.value), estimate.gradient)


@pytest.mark.parametrize("as_batch", [False, True])
def test_it_is_said_which_one_diverged(as_batch, monkeypatch):
    run = training.run_chunk
    monkeypatch.setattr(training, "run_chunk", lambda *args, **options: run(*args, **{**options, "as_batch": as_batch}))
    states = [start(seed) for seed in SEEDS]
    ruined = eqx.tree_at(lambda s: s.model.encoder[0].mean.bias, states[1], replace_fn=lambda bias: bias + 10)
    with pytest.raises(Divergence, match="at step 0 ") as caught:
        next(train_together([states[0], ruined, states[2]], DATASET, SCHEDULE, [FailsFrom()] * 3, paper_adam()))
    assert caught.value.diverged == (1,)
    assert [int(state.step) for state in caught.value.states] == [0, 0, 0]
    assert caught.value.state is caught.value.states[1]
