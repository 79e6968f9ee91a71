"""Tables of several kinds of columns: a sum of the kinds' own densities, whose draws and averages keep the columns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import iwae
from iwae.errors import IWAEError
from iwae.models.likelihoods import LIKELIHOODS, MixedLikelihood, likelihood_from_json, likelihood_of

KINDS = ["gaussian", "categorical", "poisson", "bernoulli", "categorical", "gaussian"]
KEY = jax.random.key(0)
ARCHITECTURE: Any = iwae.Architecture(None, (2,), ((16,),))


def table(count: int = 300, gaps: float = 0.0) -> np.ndarray:
    """Six columns that one hidden number moves."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=count)
    noise = rng.normal(size=(count, 3))
    columns = [
        1000 + 50 * (hidden + 0.3 * noise[:, 0]),
        np.digitize(hidden + 0.2 * noise[:, 1], [-0.7, 0.7]),
        rng.poisson(np.exp(1 + hidden)),
        hidden > 0.5 * noise[:, 2],
        rng.integers(0, 2, count),
        0.01 * hidden + 0.001 * noise[:, 2],
    ]
    rows = np.stack(columns, axis=1).astype(np.float32)
    rows[rng.random(rows.shape) < gaps] = np.nan
    return rows


@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_a_mixed_density_is_the_sum_of_its_columns(gaps: float) -> None:
    rows = table(40, gaps)
    mixed = likelihood_of(iwae.Dataset.from_arrays(rows, likelihood=KINDS))
    assert isinstance(mixed, MixedLikelihood)
    outputs = np.random.default_rng(1).normal(size=(40, mixed.num_outputs(6))).astype(np.float32)
    prepared = mixed.prepare(jnp.asarray(rows), KEY)
    observed = ~jnp.isnan(prepared)
    found = mixed.distribution(jnp.asarray(outputs)).log_prob(jnp.where(observed, prepared, 0.0), observed)
    expected, start = np.zeros(40), 0
    for columns, kind in zip(mixed.columns, mixed.kinds, strict=True):
        own, count = list(columns), kind.num_outputs(len(columns))
        name = KINDS[columns[0]]
        alone = LIKELIHOODS[name].of_data(rows[:, own], binary=name == "bernoulli")
        given = alone.distribution(jnp.asarray(outputs[:, start : start + count]))
        values = alone.prepare(jnp.asarray(rows[:, own]), KEY)
        expected += given.log_prob(jnp.where(jnp.isnan(values), 0.0, values), ~jnp.isnan(values))
        start += count
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(mixed.original(prepared), rows, rtol=1e-5, atol=1e-4)


def test_a_mixed_model_learns_fills_in_and_is_kept(tmp_path: Any) -> None:
    rows = table(400, 0.2)
    data = iwae.Dataset.from_arrays(rows[:300], rows[300:], likelihood=KINDS)
    start = iwae.create_model(data, iwae.Architecture(None, (2,), ((16,),), mask="concatenate"))
    model = iwae.fit(start, data, iwae.make_estimator("iwae", k=5), epochs=30, learning_rate=5e-3, progress=False)
    before, after = (iwae.log_likelihood(each, data.test, num_samples=50) for each in (start, model))
    assert after.mean() > before.mean() + 0.5
    iwae.save(model, tmp_path / "m.safetensors")
    kept = iwae.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(iwae.log_likelihood(kept, data.test, 50), after)
    full = table(400)[300:]
    for completed in (
        iwae.impute(model, data.test, num_samples=200),
        *iwae.impute_multiple(model, data.test, 2, num_samples=200),
    ):
        np.testing.assert_array_equal(completed[~np.isnan(data.test)], data.test[~np.isnan(data.test)])
        for column, levels in ((1, 3), (3, 2), (4, 2)):
            is_level = np.isin(completed[:, column], np.arange(levels))
            # A mean of zeros and ones is a probability.
            assert is_level.all() or (column == 3 and ((completed[:, 3] >= 0) & (completed[:, 3] <= 1)).all())
    best = iwae.impute(model, data.test, num_samples=200)
    gaps = np.isnan(data.test)
    assert np.mean(best[:, 1][gaps[:, 1]] == full[:, 1][gaps[:, 1]]) > 0.6
    error = np.sqrt(np.mean((best - full)[:, 0][gaps[:, 0]] ** 2))
    assert error < 0.8 * full[:, 0].std()


def test_the_encoder_sees_indicators_and_logarithms() -> None:
    rows = np.array([[0, 2, 5.0], [1, np.nan, 0.0]], np.float32)
    data = iwae.Dataset.from_arrays(rows, likelihood=["categorical", "categorical", "poisson"])
    model = iwae.create_model(data, ARCHITECTURE)
    seen = model.encoder_input(model.prepare(jnp.asarray(rows), KEY))
    expected = [[1, 0, 0, 0, 1, np.log(6)], [0, 1, 0, 0, 0, 0]]
    np.testing.assert_allclose(seen, expected, rtol=1e-6)


@pytest.mark.parametrize("kinds", [KINDS, ["categorical", "poisson", "bernoulli"]])
def test_a_mixed_likelihood_comes_back_from_its_record(kinds: list[str]) -> None:
    rows = table(30)[:, : len(kinds)] if kinds is KINDS else table(30)[:, 1:4]
    made = likelihood_of(iwae.Dataset.from_arrays(rows, likelihood=kinds))
    found = likelihood_from_json(made.to_json())
    assert found == made
    assert jax.tree.structure(found) == jax.tree.structure(made)


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": [[0, 2]]},
        {"columns": [[0], [1]]},
        {"kinds": []},
        {"kinds": [{"name": "mixed", "columns": [], "kinds": [], "missing": False}]},
        {"kinds": 3},
        {"columns": "no"},
    ],
)
def test_another_record_is_refused(wrong: dict[str, Any]) -> None:
    record = {"name": "mixed", "columns": [[0]], "kinds": [{"name": "poisson"}], "missing": False}
    with pytest.raises(IWAEError, match="not a mixed likelihood"):
        likelihood_from_json({**record, **wrong})


def test_kinds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(IWAEError, match="names 2 kinds, but array has 6 columns"):
        iwae.create_model(iwae.Dataset.from_arrays(table(), likelihood=["gaussian", "poisson"]))
    with pytest.raises(IWAEError, match=r"must be one of bernoulli, .*, got 'gama'"):
        iwae.create_model(iwae.Dataset.from_arrays(table(), likelihood=["gaussian"] * 5 + ["gama"]))
    data = iwae.Dataset.from_arrays(table()[:, :2], likelihood=["gaussian", "categorical"])
    with pytest.raises(IWAEError, match="self-masking needs values with an order"):
        iwae.create_model(data, iwae.Architecture(None, (2,), ((5,),), missing="self-masking"))
