"""The compiled loop: order of the data, exactness however it is cut, divergence, and a real training."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers.toy import toy_dataset
from iwae.errors import IWAEError
from iwae.estimators.base import Estimate, Estimator
from iwae.estimators.bound import Reparameterized
from iwae.estimators.objective import Objective, make_estimator
from iwae.estimators.terms import BetaVAE
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key
from iwae.training import loop as training
from iwae.training import step as stepping
from iwae.training.loop import Divergence, create_model, fit, train
from iwae.training.optim import Directions, paper_adam
from iwae.training.schedule import Stage
from iwae.training.step import LearningRates, TrainState
from iwae.training.validation import validation_bound

SMALL = Architecture(6, (3,), ((5, 5),))
SCHEDULE = (Stage(2, 1e-2), Stage(3, 5e-3))


class BatchMean(Estimator):
    """Reports the mean of the batch as its value, with no gradient: shows which rows came."""

    def __call__(self, model, x, key):
        return Estimate(-jnp.mean(x), jax.tree.map(jnp.zeros_like, model))


class Upwards(Estimator):
    """A bound that rises by one with every weight: shows by how much each step moved."""

    def __call__(self, model, x, key):
        return Estimate(-jnp.mean(x), jax.tree.map(lambda leaf: -jnp.ones_like(leaf), model))


class FailsAt(Estimator):
    """The ELBO until the weights have taken some steps, then NaN (in the value or only in the gradient)."""

    value: bool

    def __call__(self, model, x, key):
        estimate = make_estimator(Objective("elbo", k=1))(model, x, key)
        bad = jnp.where(jnp.abs(model.encoder[0].mean.bias).max() > 0.03, jnp.nan, 0.0)
        if self.value:
            return Estimate(estimate.value + bad, estimate.gradient)
        return Estimate(estimate.value, jax.tree.map(lambda g: g + bad, estimate.gradient))


def start(dataset, architecture=SMALL, seed=0):
    optimizer = paper_adam()
    return TrainState.create(create_model(dataset, architecture, seed), optimizer, seed), optimizer


def leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state.model, state.optimizer, state.step, state.epoch_bound))]


def run(dataset, estimator):
    """Trains and returns the last state and the bound at the end of every epoch."""
    state, optimizer = start(dataset)
    bounds = []
    for progress in train(state, dataset, SCHEDULE, estimator, optimizer):
        state = progress.state
        if progress.epoch_done:
            bounds.append(progress.bound)
    return state, bounds


def test_minibatches_come_in_the_datas_order_without_a_last_partial_one():
    dataset = toy_dataset(train=50, binary=True)
    state, optimizer = start(dataset)
    data = jnp.asarray(dataset.train)
    step = eqx.filter_jit(stepping.train_step)
    seen = []
    for _ in range(5):
        state, value = step(
            state, None, data, LearningRates.constant(0.1), estimator=BatchMean(), optimizer=optimizer, batch_size=20
        )
        seen.append(float(value))
    expected = [dataset.train[:20].mean(), dataset.train[20:40].mean()]
    np.testing.assert_allclose(seen, [expected[i % 2] for i in range(5)], rtol=1e-6)


@pytest.mark.parametrize("final", [0.0, 0.3, None])
def test_a_stage_s_learning_rate_goes_in_a_straight_line_step_by_step(final):
    dataset, optimizer = toy_dataset(train=100, binary=True), Directions(*optax.scale(-1.0))
    schedule = (Stage(1, 0.5), Stage(2, 0.1, final))
    state = TrainState.create(create_model(dataset, SMALL, 0), optimizer, 0)
    end = 0.1 if final is None else final
    expected = [0.5] * 5 + [0.1 + (end - 0.1) * i / 10 for i in range(10)]
    weight = state.model.encoder[0].mean.weight
    steps = []
    for progress in train(state, dataset, schedule, Upwards(), optimizer):
        moved = np.asarray(progress.state.model.encoder[0].mean.weight - weight)
        np.testing.assert_allclose(moved, sum(expected[: progress.step]), rtol=1e-5)
        assert progress.learning_rate is not None
        np.testing.assert_allclose(progress.learning_rate, expected[progress.step - 1], rtol=1e-9)
        steps.append(progress.step)
    assert steps[-1] == 15


def test_the_reported_bound_is_the_mean_over_the_epoch():
    dataset = toy_dataset(train=50, binary=True)
    _, bounds = run(dataset, BatchMean())
    np.testing.assert_allclose(bounds, [dataset.train[:40].mean()] * 5, rtol=1e-6)


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_the_result_does_not_depend_on_how_steps_are_cut_into_chunks(seconds, monkeypatch):
    dataset = toy_dataset(train=200)
    estimator = make_estimator(Objective("iwae", k=3))
    reference, bounds = run(dataset, estimator)
    monkeypatch.setattr(training, "CHUNK_SECONDS", seconds)
    monkeypatch.setattr(training, "FIRST_CHUNK_STEPS", 3)
    state, other = run(dataset, estimator)
    assert other == bounds
    for a, b in zip(leaves(reference), leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_stopping_at_any_chunk_and_going_on_changes_nothing(monkeypatch):
    dataset = toy_dataset(train=200)
    estimator = make_estimator(Objective("iwae", k=3))
    reference, _ = run(dataset, estimator)
    monkeypatch.setattr(training, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(training, "FIRST_CHUNK_STEPS", 4)
    state, optimizer = start(dataset)
    while True:
        progress = next(train(state, dataset, SCHEDULE, estimator, optimizer), None)
        if progress is None:
            break
        state = progress.state
    for a, b in zip(leaves(reference), leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_progress_names_stages_and_epochs():
    dataset = toy_dataset(train=40)
    state, optimizer = start(dataset)
    ends = [
        (p.stage, p.epoch, p.learning_rate, p.step, p.stage_done)
        for p in train(state, dataset, SCHEDULE, make_estimator(Objective("elbo", k=1)), optimizer)
        if p.epoch_done
    ]
    assert ends == [
        (0, 0, 1e-2, 2, False),
        (0, 1, 1e-2, 4, True),
        (1, 2, 5e-3, 6, False),
        (1, 3, 5e-3, 8, False),
        (1, 4, 5e-3, 10, True),
    ]


def test_with_one_sample_vae_and_iwae_are_the_same_bit_for_bit():
    dataset = toy_dataset(train=100)
    (a, a_bounds), (b, b_bounds) = (run(dataset, make_estimator(Objective(name, k=1))) for name in ("elbo", "iwae"))
    assert a_bounds == b_bounds
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_value_and_gradient_are_of_one_loss_the_mean_over_the_batch():
    dataset = toy_dataset(train=20)
    model = create_model(dataset, SMALL, 0)
    estimator, key = make_estimator(Objective("elbo", k=1)), jax.random.key(0)
    x = jnp.asarray(dataset.train > 127, jnp.float32)
    estimate = estimator(model, x, key)
    loss, gradient = jax.value_and_grad(lambda m: -jnp.mean(m.log_weights(x, key, 1)))(model)
    assert float(estimate.value) == pytest.approx(float(loss), rel=1e-6)
    for mine, expected in zip(jax.tree.leaves(estimate.gradient), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-6)


OPTIMIZERS = {
    "adam": optax.adam(3e-3),
    "adamw": optax.adamw(3e-3),
    "a schedule of Optax": optax.adam(optax.cosine_decay_schedule(3e-3, 50)),
    "a chain": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1e-2, momentum=0.9)),
    "the paper's": optax.chain(paper_adam(20), optax.scale(3e-3)),
}


@eqx.filter_jit
def estimate_of(estimator, model, x, key):
    return estimator(model, x, key)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_of_optax_improves_the_bound(name):
    """In `fit`, and in a loop of one's own, which takes the same steps."""
    dataset, optimizer = toy_dataset(train=200, binary=True), OPTIMIZERS[name]
    estimator = make_estimator("iwae", k=2)
    bounds: list[float] = []
    model = create_model(dataset, SMALL, 0)
    fitted = fit(model, dataset, estimator, epochs=6, optimizer=optimizer, callback=lambda p: bounds.append(p.bound))
    assert len(bounds) == 6
    assert bounds[-1] > bounds[0] + 0.2
    state, key = optimizer.init(model), purpose_key(0, Purpose.TRAIN)  # pyright: ignore[reportArgumentType]
    for step in range(60):
        data_key, model_key = jax.random.split(jax.random.fold_in(key, step))
        rows = jnp.asarray(dataset.train[20 * (step % 10) :][:20])
        estimate = estimate_of(estimator, model, model.prepare(rows, data_key), model_key)
        updates, state = optimizer.update(estimate.gradient, state, model)  # pyright: ignore[reportArgumentType]
        model = optax.apply_updates(model, updates)  # pyright: ignore
        assert isinstance(model, HierarchicalVAE)
    for mine, expected in zip(jax.tree.leaves(model), jax.tree.leaves(fitted), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-4)


def test_an_optimizer_with_a_rate_of_its_own_is_not_scaled_by_the_stages():
    dataset = toy_dataset(train=100, binary=True)
    model, estimator = create_model(dataset, SMALL, 0), make_estimator("elbo")
    with pytest.warns(UserWarning, match="a learning rate of its own"):
        one = fit(model, dataset, estimator, SCHEDULE, optimizer=optax.adam(1e-2))
    other = fit(model, dataset, estimator, epochs=5, optimizer=optax.adam(1e-2))
    assert eqx.tree_equal(one, other)


def test_fit_takes_arrays_and_refuses_two_lengths():
    rows = toy_dataset(train=60).train
    model = create_model(rows, SMALL)
    fitted = fit(model, rows, make_estimator("elbo"), epochs=1, learning_rate=1e-2)
    assert not eqx.tree_equal(model, fitted)
    with pytest.raises(IWAEError, match="leave out `epochs`"):
        fit(model, rows, make_estimator("elbo"), SCHEDULE, epochs=3)


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("renyi:alpha=0.5", "renyi:alpha=0"),
        ("beta-vae:beta=4", "beta-vae:beta=2:warm_up=3"),
        ("iwae:dreg", "iwae:dreg:alpha=1"),
        ("rws:sleep=0.5", "rws:sleep=1"),
    ],
)
def test_another_parameter_rate_or_seed_is_not_compiled_again(word, other, caplog):
    dataset = toy_dataset(binary=True)

    def go(word, seed):
        caplog.clear()
        with jax.log_compiles():
            options = {"epochs": 1, "learning_rate": 1e-3 * (1 + seed), "seed": seed, "patience": 1}
            fit(create_model(dataset, SMALL, seed), dataset, make_estimator(word, k=3), **options)
        return [text for text in caplog.messages if text.startswith("Compiling")]

    assert any("run_chunk" in text for text in go(word, 0))
    assert go(other, 1) == []


def test_kl_warm_up_begins_without_the_kl_and_ends_at_the_elbo():
    dataset = toy_dataset(train=40, binary=True)
    model, key = create_model(dataset, SMALL, 0), jax.random.key(0)
    x = jnp.asarray(dataset.train, jnp.float32)
    warm = BetaVAE(3, warm_up=10)
    terms = model.log_terms_at(x, model.draw_noise(key, 3, 40))
    elbo = make_estimator("elbo", k=3)(model, x, key)
    for step, share in ((0, 0.0), (5, 0.5), (10, 1.0), (99, 1.0)):
        estimate = warm.at(jnp.int32(step))(model, x, key)
        expected = -jnp.mean(terms.visible + share * (terms.prior - terms.posterior))
        np.testing.assert_allclose(estimate.value, expected, rtol=1e-5)
    estimate = warm.at(jnp.int32(10))(model, x, key)
    for mine, expected in zip(jax.tree.leaves(estimate.gradient), jax.tree.leaves(elbo.gradient), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-6)


def test_free_bits_are_the_elbo_where_the_kl_is_above_them_and_have_no_part_of_it_below():
    dataset = toy_dataset(train=40, binary=True)
    model, key = create_model(dataset, SMALL, 0), jax.random.key(0)
    x = jnp.asarray(dataset.train, jnp.float32)
    terms = model.log_terms_at(x, model.draw_noise(key, 3, 40))
    divergence = float(jnp.mean(terms.posterior - terms.prior))
    assert divergence > 0.01
    elbo, without = (make_estimator(word, k=3)(model, x, key) for word in ("elbo", "beta-vae:beta=0"))
    for free, same, value in (
        (0.5 * divergence, elbo, elbo.value),
        (divergence + 2.0, without, without.value + divergence + 2.0),
    ):
        estimate = make_estimator(f"free-bits:free_bits={free}", k=3)(model, x, key)
        assert float(estimate.value) == pytest.approx(float(value), rel=1e-5)
        for mine, expected in zip(jax.tree.leaves(estimate.gradient), jax.tree.leaves(same.gradient), strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(IWAEError, match="objective free-bits needs free_bits"):
        make_estimator("free-bits", k=3)


@pytest.mark.parametrize("value", [True, False])
def test_divergence_is_noticed_within_a_chunk_and_the_last_good_state_kept(value, monkeypatch):
    monkeypatch.setattr(training, "FIRST_CHUNK_STEPS", 2)
    dataset = toy_dataset(train=200)
    state, optimizer = start(dataset)
    seen = []

    def train_until_it_fails():
        for progress in train(state, dataset, (Stage(50, 1e-2),), FailsAt(value), optimizer):
            seen.append(progress.state)

    with pytest.raises(
        Divergence, match=r"training diverged: at step \d+ \(epoch \d+\).*smaller learning rate"
    ) as caught:
        train_until_it_fails()
    good = caught.value.state
    assert seen
    assert int(good.step) == int(seen[-1].step)
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves(good))
    assert "\n" not in str(caught.value)


def test_a_batch_larger_than_the_data_is_refused():
    dataset = toy_dataset(train=10)
    state, optimizer = start(dataset)
    with pytest.raises(IWAEError, match="`batch_size` is 20, but toy has 10 training examples"):
        next(train(state, dataset, SCHEDULE, make_estimator(Objective("elbo", k=1)), optimizer))


def test_fit_is_train_to_the_end():
    dataset = toy_dataset(train=100)
    reference, _ = run(dataset, make_estimator(Objective("iwae", k=2)))
    steps = []
    model = fit(
        create_model(dataset, SMALL, 0),
        dataset,
        make_estimator(Objective("iwae", k=2)),
        SCHEDULE,
        callback=lambda progress: steps.append(progress.step),
    )
    assert steps[-1] == 25
    for a, b in zip(jax.tree.leaves(reference.model), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_bound_of_ones_own_trains():
    dataset = toy_dataset(train=200)
    median = Reparameterized(5, lambda log_weights: jnp.median(log_weights, axis=0))
    _, bounds = run(dataset, median)
    assert bounds[-1] > bounds[0]


def test_the_validation_bound_is_that_of_a_loop_and_repeats():
    dataset = toy_dataset(valid=10, binary=True)
    model = create_model(dataset, SMALL)
    (key,) = jax.random.split(purpose_key(0, Purpose.VALIDATE), 1)
    data_key, noise_key = jax.random.split(key)
    log_weights = model.log_weights(model.prepare(jnp.asarray(dataset.valid), data_key), noise_key, 4)
    expected = float(jnp.mean(jax.scipy.special.logsumexp(log_weights, axis=0) - jnp.log(4.0)))
    assert validation_bound(model, dataset, 4) == pytest.approx(expected, rel=1e-5)
    assert validation_bound(model, dataset, 4) == validation_bound(model, dataset, 4)
    assert validation_bound(model, replace(dataset, valid=dataset.valid[:0]), 4) is None


def test_patience_ends_training_at_the_best_epoch():
    """Few rows and a large network overfit soon: the model returned is the best one by the validation bound."""
    dataset = toy_dataset(train=20, valid=200, binary=True)
    found = []

    def keep(progress):
        found.append((progress.valid_bound, progress.state.model))

    model = create_model(dataset, Architecture(None, (3,), ((50, 50),)))
    estimator, options = make_estimator("iwae", k=3), {"epochs": 500, "learning_rate": 1e-2, "callback": keep}
    best = fit(model, dataset, estimator, patience=5, **options)
    bounds = [bound for bound, _ in found]
    top = int(np.argmax(bounds))
    assert len(bounds) == top + 6 < 500
    assert eqx.tree_equal(best, found[top][1])
    with pytest.raises(IWAEError, match="`patience` needs validation examples"):
        fit(model, dataset.train, estimator, patience=5)
