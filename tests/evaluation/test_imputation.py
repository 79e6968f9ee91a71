"""Imputations against linear-Gaussian models, where the mean and covariance of what is missing are closed forms."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers.linear_gaussian import LinearGaussian, linear
from helpers.toy import toy_dataset
from iwae.data import Dataset
from iwae.errors import IWAEError
from iwae.evaluation.imputation import check_imputation, impute, impute_multiple, numbers_of_content
from iwae.evaluation.reconstruction import reconstruct
from iwae.models.architecture import Architecture
from iwae.models.layers import TanhNetwork
from iwae.models.likelihoods import GaussianLikelihood, VisibleLayer
from iwae.models.vae import HierarchicalVAE
from iwae.training.loop import create_model

SHIFT, SPREAD = (100.0, -5.0, 0.0, 3.0), (10.0, 2.0, 1.0, 0.1)


def known_model(layers: int = 1) -> tuple[LinearGaussian, HierarchicalVAE]:
    """A linear-Gaussian model of standardized values on rows of other units; its encoder is right for whole rows."""
    exact = LinearGaussian.random(layers, seed=3)
    model = jax.tree.map(jnp.float32, exact.model(widen=2.0))
    weight = np.concatenate([exact.loadings, np.zeros_like(exact.loadings)], axis=1)
    # The likelihood's sigma is 0.001 + exp(raw).
    bias = np.concatenate([exact.bias, np.log(exact.sigma - 1e-3)])
    outputs = jax.tree.map(jnp.float32, linear(weight, bias))
    visible = VisibleLayer(TanhNetwork(()), outputs, GaussianLikelihood(SHIFT, SPREAD, missing=True))
    return exact, HierarchicalVAE(model.encoder, (visible, *model.decoder[1:]))


def conditional(exact: LinearGaussian, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance, in the units of the rows, of what is NaN in a row, given the rest of it."""
    covariance = exact.loadings.T @ np.diag(exact.prior_variance) @ exact.loadings + np.diag(exact.sigma**2)
    z, m = (row - SHIFT) / SPREAD, np.isnan(row)
    gain = covariance[np.ix_(m, ~m)] @ np.linalg.inv(covariance[np.ix_(~m, ~m)])
    mean = exact.bias[m] + gain @ (z - exact.bias)[~m]
    scale = np.array(SPREAD)[m]
    inner = covariance[np.ix_(m, m)] - gain @ covariance[np.ix_(~m, m)]
    return mean * scale + np.array(SHIFT)[m], inner * np.outer(scale, scale)


def rows_with_gaps(exact: LinearGaussian, num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Whole rows, and the same with a gap in each."""
    rows = exact.sample(num) * SPREAD + SHIFT
    mask = np.random.default_rng(seed).random(rows.shape) < 0.4
    mask[:, 0] = ~mask[:, 1:].any(axis=1)
    return rows, np.where(mask, np.nan, rows)


@pytest.mark.parametrize("layers", [1, 2])
def test_single_imputations_are_the_conditional_means(layers):
    exact, model = known_model(layers)
    _, gaps = rows_with_gaps(exact, 40)
    found = np.stack([impute(model, gaps, num_samples=4000, seed=seed) for seed in range(16)])
    errors, sizes = [], []
    for row, filled in zip(gaps, np.moveaxis(found, 1, 0), strict=True):
        mean, covariance = conditional(exact, row)
        values, sigma = filled[:, np.isnan(row)], np.sqrt(np.diag(covariance))
        errors += [*((values.mean(axis=0) - mean) / (values.std(axis=0, ddof=1) / 4))]
        sizes += [*(np.abs(values.mean(axis=0) - mean) / sigma)]
    # Student's t with 15 degrees of freedom has a root mean square of 1.07; entries of a row vary together.
    assert 0.7 < np.sqrt(np.mean(np.square(errors))) < 1.4
    assert np.abs(errors).max() < 6
    assert np.max(sizes) < 0.1


def test_multiple_imputations_come_from_the_conditional_distribution():
    exact, model = known_model()
    _, gaps = rows_with_gaps(exact, 6)
    tables = impute_multiple(model, gaps, 1500, num_samples=3000)
    assert tables.shape == (1500, 6, 4)
    for row, draws in zip(gaps, np.moveaxis(tables, 1, 0), strict=True):
        mean, covariance = conditional(exact, row)
        drawn, sigma = draws[:, np.isnan(row)], np.sqrt(np.diag(covariance))
        assert np.all(np.abs(drawn.mean(axis=0) - mean) < 4.5 * sigma / np.sqrt(1500))
        correlations = np.atleast_2d(np.cov(drawn.T)) / np.outer(sigma, sigma) - covariance / np.outer(sigma, sigma)
        assert np.abs(correlations).max() < 0.15
        assert stats.kstest((drawn[:, 0] - mean[0]) / sigma[0], "norm").pvalue > 1e-4


def test_intervals_of_ninety_percent_cover_ninety_percent():
    exact, model = known_model()
    rows, gaps = rows_with_gaps(exact, 700)
    # Of 100 draws the quantiles would enclose 88 % of further ones.
    tables = impute_multiple(model, gaps, 500, num_samples=2000)
    low, high = np.quantile(tables, [0.05, 0.95], axis=0)
    m = np.isnan(gaps)
    assert m.sum() > 1000
    assert abs(np.mean((low <= rows)[m] & (rows <= high)[m]) - 0.9) < 0.03


@pytest.mark.parametrize("dtype", [np.float64, np.float32, ">f8", np.float16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_observed_values_come_back_to_the_bit_in_their_type(dtype, order):
    exact, model = known_model()
    gaps = np.asarray(rows_with_gaps(exact, 5)[1], dtype, order=order)
    before = gaps.copy()
    single, several = impute(model, gaps, num_samples=50), impute_multiple(model, gaps, 3, num_samples=50)
    for table in (single, *several):
        assert table.dtype == gaps.dtype
        seen = ~np.isnan(gaps)
        assert table[seen].tobytes() == gaps[seen].tobytes()
        assert not np.isnan(table).any()
    np.testing.assert_array_equal(gaps, before)
    whole = np.arange(8).reshape(2, 4)
    assert impute(model, whole).dtype == whole.dtype
    np.testing.assert_array_equal(impute_multiple(model, whole, 2), [whole, whole])


@settings(max_examples=15)
@given(st.sets(st.integers(0, 149), min_size=1, max_size=100), st.integers(0, 3))
def test_a_row_with_a_number_is_imputed_alike_whatever_rows_are_beside_it(chosen, seed):
    exact, model = known_model()
    _, gaps = rows_with_gaps(exact, 150)
    places = np.array(sorted(chosen, key=lambda i: hash((i, seed))))
    how: dict[str, Any] = {"num_samples": 40, "seed": seed}
    everyone = np.arange(150)
    whole, part = (impute(model, gaps[rows], indices=rows, **how) for rows in (everyone, places))
    np.testing.assert_array_equal(part, whole[places])
    drawn, of_all = (impute_multiple(model, gaps[rows], 2, indices=rows, **how) for rows in (places, everyone))
    np.testing.assert_array_equal(drawn, of_all[:, places])
    assert not np.array_equal(whole, impute(model, gaps, num_samples=40, seed=seed + 1, indices=everyone))


def test_a_rows_content_gives_it_its_draws():
    """Not its place, nor the rows beside it; equal rows have draws of their own."""
    exact, model = known_model()
    _, gaps = rows_with_gaps(exact, 70)
    order = np.random.default_rng(0).permutation(70)[:40]
    how: dict[str, Any] = {"num_samples": 40}
    np.testing.assert_array_equal(impute(model, gaps[order], **how), impute(model, gaps, **how)[order])
    several = impute_multiple(model, gaps, 2, **how)
    np.testing.assert_array_equal(impute_multiple(model, gaps[order], 2, **how), several[:, order])
    twice = impute_multiple(model, gaps[[0, 0]], 2, **how)
    np.testing.assert_array_equal(twice[:, 0], several[:, 0])
    assert not np.array_equal(twice[:, 0], twice[:, 1])


def test_a_check_agrees_with_the_conditional_means_and_beats_the_columns():
    exact, model = known_model()
    rows, _ = rows_with_gaps(exact, 1500)
    found = check_imputation(model, rows, num_samples=300)
    assert abs(found.hidden / rows.size - 0.2) < 0.02
    assert found.is_better
    assert abs(found.error_of_means - 1) < 0.1
    hidden = np.random.default_rng(0).random(rows.shape) < 0.2
    gaps, spread, squares = np.where(hidden, np.nan, rows), rows.std(axis=0), []
    for row, gap in zip(rows, gaps, strict=True):
        if np.isnan(gap).any():
            mean, _ = conditional(exact, gap)
            squares += [*(((mean - row[np.isnan(gap)]) / spread[np.isnan(gap)]) ** 2)]
    assert found.error == pytest.approx(np.sqrt(np.mean(squares)), rel=0.03)


def test_a_check_of_categories_counts_those_that_come_out_right():
    """A model that knows only the shares can do no better than the most frequent level."""
    rng = np.random.default_rng(0)
    rows = np.stack([rng.random(400) < 0.3, rng.normal(size=400)], axis=1).astype(np.float64)
    data = Dataset.from_arrays(rows, likelihood="0=categorical,gaussian")
    model = create_model(data, Architecture(2, (1,), ((2,),)))
    silent = eqx.tree_at(lambda m: m.decoder[0].outputs.weight, model, replace_fn=jnp.zeros_like)
    found = check_imputation(silent, rows, num_samples=20)
    assert found.right == found.right_of_modes
    assert abs(found.right - 0.7) < 0.1
    assert found.error == pytest.approx(found.error_of_means, rel=0.05)
    whole = check_imputation(silent, rows[:, :] * [1, np.nan], num_samples=20)
    assert np.isnan(whole.error)
    assert whole.is_better


def test_numbers_of_content_follow_the_row():
    rows = np.array([[1.0, np.nan], [2.0, 3.0], [1.0, np.nan]], np.float32)
    np.testing.assert_array_equal(numbers_of_content(rows.astype(">f8")), numbers_of_content(rows))
    zeros = numbers_of_content(np.array([[0.0, np.nan], [-0.0, -np.nan]]))
    assert zeros[0] == zeros[1]
    first = numbers_of_content(rows)
    assert first[0] == first[2] != first[1]
    np.testing.assert_array_equal(numbers_of_content(rows[::-1]), first[::-1])
    apart = numbers_of_content(rows, repeats=True)
    assert len(set(apart.tolist())) == 3
    np.testing.assert_array_equal(numbers_of_content(rows[[0, 1]], repeats=True), apart[:2])


def test_a_row_without_any_value_gets_the_mean_of_the_model():
    exact, model = known_model()
    (filled,) = impute(model, np.full((1, 4), np.nan), num_samples=50_000)
    mean = exact.bias * SPREAD + SHIFT
    assert np.all(np.abs(filled - mean) < 0.05 * np.array(SPREAD) * np.sqrt(1 + exact.loadings**2).max())


def test_binary_images_keep_their_shape_and_draws_are_bits():
    data = toy_dataset(binary=True)
    model = create_model(data, Architecture(6, (3,), ((5,),)))
    images = data.test.reshape(-1, 2, 3).astype(np.float32)
    images[:, 0, 1] = np.nan
    single, several = impute(model, images, num_samples=30), impute_multiple(model, images, 4, num_samples=30)
    assert (single.shape, several.shape) == (images.shape, (4, *images.shape))
    assert np.all((single[:, 0, 1] > 0) & (single[:, 0, 1] < 1))
    assert set(np.unique(several)) == {0.0, 1.0}


def test_a_reconstruction_does_not_depend_on_the_other_rows():
    exact, model = known_model()
    rows, _ = rows_with_gaps(exact, 70)
    np.testing.assert_array_equal(reconstruct(model, rows)[:3], reconstruct(model, rows[:3]))


def test_what_can_not_be_imputed_is_refused():
    _, model = known_model()
    gap = np.array([[np.nan, 1.0, 2.0, 3.0]])
    with pytest.raises(IWAEError, match="infinite"):
        impute(model, np.array([[np.inf, 1.0, 2.0, np.nan]]))
    with pytest.raises(IWAEError, match="3 dimensions, but the model was built for 4"):
        impute(model, gap[:, :3])
    with pytest.raises(IWAEError, match="`num_samples` must be at most 100,000"):
        impute(model, gap, num_samples=100_001)
    with pytest.raises(IWAEError, match="`num_draws` must be an integer of at least 1"):
        impute_multiple(model, gap, 0)
    wrong: Any = ([0, 1], [-1], [0.5])
    for indices in wrong:
        with pytest.raises(IWAEError, match="`indices` must be 1 integers of at least 0"):
            impute(model, gap, indices=indices)
