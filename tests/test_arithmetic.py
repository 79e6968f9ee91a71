"""Figures are the same whatever JAX is told for the rest of a program."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
import pytest

import iwae
from helpers.toy import toy_dataset

OTHER: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "64 bits": lambda: jax.enable_x64(True),
    "strict types": lambda: jax.numpy_dtype_promotion("strict"),
    "no broadcasting of ranks": lambda: jax.numpy_rank_promotion("raise"),
}
DATA = toy_dataset()


def figures() -> list[np.ndarray]:
    """Weights and figures of a small model, from the functions that people call."""
    model = iwae.create_model(DATA, iwae.Architecture(None, (3,), ((4, 4),)))
    model = iwae.fit(model, DATA, iwae.make_estimator("iwae:dreg", k=2), epochs=1, progress=False)
    (drawn,) = iwae.posterior(model, DATA, num_samples=5)
    return [
        *map(np.asarray, jax.tree.leaves(model)),
        iwae.log_likelihood(model, DATA.test, num_samples=5),
        iwae.ais(model, DATA, chains=2, steps=2, leapfrogs=2).log_weights,
        iwae.active_units(model, DATA, num_samples=10).variances[0],
        np.asarray(iwae.encode(model, DATA.test)),
        np.asarray(iwae.reconstruct(model, DATA.test)),
        np.asarray(drawn),
        *map(np.asarray, iwae.paper_active_units(model, DATA).variances),
    ]


@pytest.fixture(scope="module")
def usual() -> list[np.ndarray]:
    return figures()


@pytest.mark.filterwarnings("ignore:.*moves that are accepted")
@pytest.mark.parametrize("mode", OTHER)
def test_a_mode_of_jax_changes_no_figure(mode: str, usual: list[np.ndarray]) -> None:
    with OTHER[mode]():
        found = figures()
    assert [array.dtype for array in found] == [array.dtype for array in usual]
    for mine, theirs in zip(found, usual, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("mode", ["64 bits", "strict types"])
def test_a_custom_loop_may_be_in_these_modes(mode: str) -> None:
    """What is called within a program's own compiled step can't change its modes."""
    model = iwae.create_model(DATA, iwae.Architecture(None, (3,), ((4, 4),)))
    x, estimator = iwae.prepare(model, DATA), iwae.make_estimator("iwae:dreg", k=2)
    expected = float(estimator(model, x, jax.random.key(0)).value)
    with OTHER[mode]():
        assert float(estimator(model, x, jax.random.key(0)).value) == pytest.approx(expected, rel=1e-5)
