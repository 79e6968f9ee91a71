"""The paper's Adam against its formula in NumPy, and the learning-rate stages."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwae.errors import IWAEError
from iwae.training.optim import nadam, paper_adam
from iwae.training.schedule import PAPER_LEARNING_RATES, SCHEDULES, Stage, locate, make_schedule, stage_end


@pytest.mark.parametrize("moments", ["delayed", "current"])
@pytest.mark.parametrize("beta1", [0.99, 0.9])
def test_adam_is_the_papers_with_its_second_moment_starting_at_one(beta1, moments, request):
    """The paper's code updates all at once: the step has the moments from before its own gradient."""
    rng = np.random.default_rng(0)
    optimizer = paper_adam(3, beta1=beta1, moments=moments)
    shape = (3, 2)
    jax.config.update("jax_enable_x64", True)
    request.addfinalizer(lambda: jax.config.update("jax_enable_x64", False))
    state = optimizer.init({"w": jnp.zeros(shape)})
    first, second = np.zeros(shape), np.ones(shape)
    for t in range(1, 8):
        gradient = rng.normal(scale=10.0, size=shape)
        before = first, second
        first = beta1 * first + (1 - beta1) * gradient
        second = 0.999 * second + 0.001 * gradient**2
        m, v = before if moments == "delayed" else (first, second)
        expected = np.sqrt(1 - 0.999**t) / (1 - beta1**t) * m / (np.sqrt(v) + 1e-4)
        if moments == "delayed" and t == 1:
            assert not np.any(expected)
        directions, state = optimizer.update(
            {"w": jnp.asarray(gradient / -3)}, state
        )  # Of the mean loss of three examples.
        np.testing.assert_allclose(directions["w"], expected, rtol=1e-8)  # pyright: ignore


def test_nadam_is_adam_that_looks_ahead(request):
    """Dozat 2016: the momentum of the next step, in place of this one's, on the corrected second moment."""
    rng = np.random.default_rng(0)
    jax.config.update("jax_enable_x64", True)
    request.addfinalizer(lambda: jax.config.update("jax_enable_x64", False))
    optimizer = nadam(3, beta1=0.8)
    state = optimizer.init({"w": jnp.zeros(3)})
    first, second = np.zeros(3), np.zeros(3)
    for t in range(1, 8):
        gradient = rng.normal(scale=10.0, size=3)
        first, second = 0.8 * first + 0.2 * gradient, 0.999 * second + 0.001 * gradient**2
        ahead = 0.8 * first / (1 - 0.8 ** (t + 1)) + 0.2 * gradient / (1 - 0.8**t)
        expected = ahead / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        directions, state = optimizer.update(
            {"w": jnp.asarray(gradient / -3)}, state
        )  # Of the mean loss of three examples.
        np.testing.assert_allclose(directions["w"], expected, rtol=1e-8)  # pyright: ignore


def test_the_fast_schedule_falls_in_one_line_to_zero():
    for samples, epochs in ((1, 800), (8, 800), (9, 400), (50, 400)):
        schedule = make_schedule("fast", num_samples=samples)
        assert stage_end(schedule, 8) == epochs
        assert len({stage.epochs for stage in schedule}) == 1
        assert (schedule[0].learning_rate, schedule[-1].final_learning_rate) == (3e-3, 0.0)
        for before, after in itertools.pairwise(schedule):
            assert before.end_rate == after.learning_rate
        starts, ends = ([stage.rate_after(part) for stage in schedule] for part in (0.0, 1.0))
        drops = np.subtract(starts, ends)  # pyright: ignore[reportCallIssue, reportArgumentType]
        np.testing.assert_allclose(drops, 3e-3 / 8)


def test_the_paper_s_schedule():
    schedule = make_schedule("paper")
    assert [stage.epochs for stage in schedule] == [1, 3, 9, 27, 81, 243, 729, 2187]
    assert stage_end(schedule, 8) == 3280
    exact = [0.001 * 10 ** (-i / 7) for i in range(8)]
    assert [round(rate, 5) for rate in exact] == [stage.learning_rate for stage in schedule]
    assert stage_end(make_schedule("paper", 5), 5) == 121


def test_rounded_rates_are_within_half_a_digit_of_the_formula():
    for i, rate in enumerate(PAPER_LEARNING_RATES):
        assert abs(rate - 0.001 * 10 ** (-i / 7)) <= 0.5e-5


@pytest.mark.parametrize("stages", [0, 9, -1])
def test_stages_that_are_not_there_are_refused(stages):
    with pytest.raises(IWAEError, match=f"from 1 to 8 for the paper schedule, got {stages}"):
        make_schedule("paper", stages)


def test_unknown_schedule_is_refused():
    with pytest.raises(IWAEError, match="unknown schedule 'slow': expected one of paper, quick, fast"):
        make_schedule("slow")


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(1, 50), st.data())
def test_locate_counts_every_step_once(name, steps_per_epoch, data):
    schedule = SCHEDULES[name]
    total = stage_end(schedule, len(schedule)) * steps_per_epoch
    step = data.draw(st.integers(0, total - 1))
    position = locate(schedule, step, steps_per_epoch)
    assert position is not None
    assert position.epoch * steps_per_epoch + position.step_in_epoch == step
    assert stage_end(schedule, position.stage) <= position.epoch < stage_end(schedule, position.stage + 1)
    stage = schedule[position.stage]
    assert position.stage_start <= step < position.stage_end == position.stage_start + stage.epochs * steps_per_epoch
    assert locate(schedule, total, steps_per_epoch) is None


@pytest.mark.parametrize(
    "stage", [(0, 1e-3), (1, 0.0), (1, -1e-3), (1, float("inf")), (1, 1e-3, -1e-9), (1, 1e-3, float("nan"))]
)
def test_stages_without_meaning_are_refused(stage):
    with pytest.raises(IWAEError, match=r"a stage|`epochs`"):
        Stage(*stage)


def test_a_schedule_of_other_lengths_and_rates():
    assert make_schedule("quick", epochs=7) == (Stage(7, 1e-3),)
    assert [stage.learning_rate for stage in make_schedule("quick", learning_rate=1e-2)] == [1e-2, 5e-3, 2.5e-3, 1e-3]
    for epochs in (1, 3, 8, 50):
        falling = make_schedule("fast", epochs=epochs, learning_rate=1e-2)
        assert stage_end(falling, len(falling)) == epochs
        done = 0
        for stage in falling:
            assert stage.learning_rate == pytest.approx(1e-2 * (1 - done / epochs))
            done += stage.epochs
            assert stage.final_learning_rate == pytest.approx(1e-2 * (1 - done / epochs), abs=1e-15)
