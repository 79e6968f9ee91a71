"""The estimators within scikit-learn, against closed forms and scikit-learn's own."""

import pickle
from typing import Any

import numpy as np
import pandas
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import iwae
from iwae.sklearn import IWAEDensity, IWAEImputer
from iwae.sklearn.base import _estimator, _optimizer  # pyright: ignore[reportPrivateUsage]
from iwae.training import step

SMALL: dict[str, Any] = {"n_components": 3, "hidden": (16,), "k": 5, "num_samples": 200, "random_state": 0}
QUICK: dict[str, Any] = {**SMALL, "max_iter": 3}
COVARIANCE = 0.8 * np.ones((4, 4)) + 0.2 * np.eye(4)
SCALE, SHIFT = np.array([1.0, 100.0, 0.01, 5.0]), np.array([0.0, 1000.0, -1.0, 3.0])


def rows(num: int, seed: int = 0, dim: int = 4) -> np.ndarray:
    standard = np.random.default_rng(seed).multivariate_normal(np.zeros(4), COVARIANCE, num)
    return (standard * SCALE + SHIFT)[:, :dim]


def gaps(num: int = 120, seed: int = 0, rate: float = 0.25) -> np.ndarray:
    table = rows(num, seed)
    table[np.random.default_rng(seed + 100).random(table.shape) < rate] = np.nan
    return table


@pytest.fixture(scope="module")
def density() -> IWAEDensity:
    return IWAEDensity(**SMALL, shared_scale=True).fit(rows(600))


@pytest.fixture(scope="module")
def imputer() -> IWAEImputer:
    return IWAEImputer(**SMALL).fit(gaps(600))


def test_densities_and_draws_are_in_the_units_of_the_table(density):
    new = rows(300, seed=1)
    covariance: Any = COVARIANCE * np.outer(SCALE, SCALE)
    exact = stats.multivariate_normal(SHIFT, covariance).logpdf(new)
    found = density.score_samples(new)
    assert found.dtype == np.float64
    assert abs(found.mean() - exact.mean()) < 0.15
    assert np.corrcoef(found, exact)[0, 1] > 0.95
    assert density.score(new) == pytest.approx(found.mean())
    drawn = density.sample(4000, random_state=0)
    np.testing.assert_allclose((drawn.mean(axis=0) - SHIFT) / SCALE, 0, atol=0.15)
    np.testing.assert_allclose(np.cov((drawn / SCALE).T), COVARIANCE, atol=0.2)
    np.testing.assert_array_equal(drawn, density.sample(4000, random_state=0))
    whole = iwae.log_likelihood(density.model_, new[:50], num_samples=500)
    np.testing.assert_allclose(whole.mean(), found[:50].mean(), atol=0.1)


def test_codes_keep_what_a_table_has(density):
    new = rows(200, seed=2)
    codes = density.transform(new)
    assert codes.shape == (200, 3)
    assert list(density.get_feature_names_out()) == ["iwaedensity0", "iwaedensity1", "iwaedensity2"]
    errors = (density.inverse_transform(codes) - new) / SCALE
    assert np.mean(errors**2) < 0.3
    with pytest.raises(ValueError, match="X has 2 features, but codes have 3"):
        density.inverse_transform(codes[:, :2])


def test_scores_and_imputations_are_functions_of_the_row(density, imputer):
    new = gaps(90, seed=3)
    order = np.random.default_rng(0).permutation(90)
    for found in (density.score_samples, density.transform, imputer.transform, imputer.score_samples):
        np.testing.assert_array_equal(found(new)[order], found(new[order]))
        np.testing.assert_array_equal(found(new)[5:7], found(new[5:7]))


def test_imputations_are_better_than_means_and_leave_what_is_there(imputer):
    whole, new = rows(300, seed=4), gaps(300, seed=4)
    missing = np.isnan(new)
    filled = imputer.transform(new)
    np.testing.assert_array_equal(filled[~missing], new[~missing])
    ours, means = (
        np.mean((((table - whole) / SCALE)[missing]) ** 2) for table in (filled, SimpleImputer().fit_transform(new))
    )
    assert ours < 0.45 * means
    tables = imputer.sample(new, 100)
    assert tables.shape == (100, 300, 4)
    low, high = np.quantile(tables, [0.05, 0.95], axis=0)
    assert abs(np.mean((low <= whole)[missing] & (whole <= high)[missing]) - 0.9) < 0.06
    twice = imputer.sample(new[[7, 7]], 5)
    assert not np.array_equal(twice[:, 0], twice[:, 1]) or not np.isnan(new[7]).any()


def test_pandas_goes_in_and_comes_out(imputer):
    frame = pandas.DataFrame(gaps(80), columns=list("abcd"), index=range(100, 180))
    fitted = clone(imputer).set_params(max_iter=2, add_indicator=True).set_output(transform="pandas").fit(frame)
    out = fitted.transform(frame)
    assert list(out.columns) == [*"abcd", *(f"missingindicator_{c}" for c in "abcd")]
    assert list(out.index) == list(frame.index)
    with pytest.raises(ValueError, match="feature names"):
        fitted.transform(frame[list("dcba")])


def mixed(num: int = 150, seed: int = 0) -> pandas.DataFrame:
    """Four columns of four types that one hidden number moves, with gaps."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=num)
    noise = 0.3 * rng.normal(size=(num, 3))
    frame = pandas.DataFrame(
        {
            "age": 50 + 10 * (hidden + noise[:, 0]),
            "city": pandas.Categorical(np.where(hidden + noise[:, 1] > 0, "Oslo", "Rome")),
            "visits": rng.poisson(np.exp(1 + hidden)),
            "smokes": pandas.array(hidden + noise[:, 2] > 0.5, "boolean"),
        },
        index=range(100, 100 + num),
    )
    frame = frame.astype({"visits": "Int64"})
    for place, name in enumerate(frame):
        frame.loc[frame.index[place::7], name] = None
    return frame


@pytest.mark.parametrize("likelihood", ["gaussian", "auto", "visits=negative-binomial"])
def test_frames_with_categories_go_in_and_come_out(likelihood):
    frame, new = mixed(), mixed(40, seed=1)
    how = {**SMALL, "max_iter": 25, "likelihood": likelihood}
    fitted = IWAEImputer(**how).set_output(transform="pandas").fit(frame)
    kinds = {column.name: column.kind for column in fitted.columns_}
    counts = {"gaussian": "gaussian"}.get(likelihood, "negative-binomial")
    assert kinds == {"age": "gaussian", "city": "categorical", "visits": counts, "smokes": "bernoulli"}
    filled = fitted.transform(new)
    assert filled.dtypes.equals(new.dtypes)
    assert filled.index.equals(new.index)
    assert not filled.isna().any(axis=None)
    for name in new:
        seen = new[name].notna()
        assert (filled[name][seen] == new[name][seen]).all()
    pandas.testing.assert_frame_equal(fitted.transform(new[20:]), filled[20:])
    tables = fitted.sample(new, 3)
    assert len(tables) == 3
    assert all(table.dtypes.equals(new.dtypes) and not table.isna().any(axis=None) for table in tables)
    assert list(fitted.get_feature_names_out()) == list(new)
    marked = clone(fitted).set_params(add_indicator=True, max_iter=1).fit(frame).transform(new)
    np.testing.assert_array_equal(marked["missingindicator_city"], new["city"].isna())
    assert list(marked.columns[:4]) == list(new)


def test_the_density_of_a_frame_with_categories_knows_which_rows_are_odd():
    frame = mixed(400)
    fitted = IWAEDensity(**{**SMALL, "max_iter": 60, "n_components": 2}).fit(frame)
    usual = pandas.DataFrame({"age": [60.0, 60.0], "city": ["Oslo", "Rome"], "visits": [7, 7], "smokes": [True, True]})
    likely, odd = fitted.score_samples(usual)
    assert likely > odd + 1
    drawn = fitted.sample(200, random_state=0)
    assert set(drawn["city"]) == {"Oslo", "Rome"}
    assert (drawn["smokes"].dtype, drawn["visits"].dtype) == (bool, np.int64)
    assert fitted.transform(frame).shape == (400, 2)
    assert set(fitted.inverse_transform(fitted.transform(frame))["city"]) == {"Oslo", "Rome"}
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.score_samples(usual), [likely, odd])
    with pytest.raises(ValueError, match="fitted to a frame with categories: give such a frame, not ndarray"):
        fitted.score_samples(usual.to_numpy())
    with pytest.raises(ValueError, match="column 'city' has 'Bonn' in row 1, which was not there"):
        fitted.score_samples(usual.assign(city="Bonn"))
    with pytest.raises(ValueError, match="feature names"):
        fitted.score_samples(usual[["city", "age", "visits", "smokes"]])
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        IWAEDensity(**QUICK).fit(usual[:1])


def test_columns_without_values_are_left_out_or_zero():
    table = gaps(60)
    table[:, 2] = np.nan
    assert IWAEImputer(**QUICK).fit_transform(table).shape == (60, 3)
    kept = IWAEImputer(**QUICK, keep_empty_features=True).fit(table)
    assert np.all(kept.transform(table)[:, 2] == 0)
    assert len(kept.get_feature_names_out()) == 4
    with pytest.raises(ValueError, match="no column of X has any value"):
        IWAEImputer(**QUICK).fit(np.full((5, 2), np.nan))
    marked = np.where(np.isnan(gaps(60)), -1.0, gaps(60))
    filled = IWAEImputer(**QUICK, missing_values=-1).fit_transform(marked)
    assert not np.any(filled == -1)


def test_a_grid_a_pipeline_and_a_column_transformer(imputer):
    table, target = gaps(100), rows(100)[:, 0]
    columns = ColumnTransformer([("fill", IWAEImputer(**QUICK), [1, 2, 3])], remainder="drop")
    search = GridSearchCV(
        make_pipeline(columns, LinearRegression()), {"columntransformer__fill__n_components": [1, 2]}, cv=2
    ).fit(table, target)
    assert search.best_score_ > 0.3
    by_density = GridSearchCV(IWAEDensity(**QUICK), {"n_components": [1, 2]}, cv=2).fit(table)
    assert np.isfinite(by_density.best_score_)


def test_pickles_clones_and_seeds(imputer):
    new = gaps(20, seed=5)
    again = pickle.loads(pickle.dumps(imputer))
    np.testing.assert_array_equal(again.transform(new), imputer.transform(new))
    one, two = (clone(imputer).set_params(max_iter=2).fit(gaps()).transform(new) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    other = clone(imputer).set_params(max_iter=2, random_state=1).fit(gaps()).transform(new)
    assert not np.array_equal(one, other)


def test_warm_start_goes_on_from_what_was_learned():
    first = IWAEDensity(**QUICK, warm_start=True).fit(rows(200))
    before, model = max(first.validation_scores_), first._model
    first.fit(rows(200))
    assert max(first.validation_scores_) > before
    assert first._model is not model
    assert first.fit(rows(200, dim=3)).n_features_in_ == 3


def test_repeated_fits_of_one_width_compile_once():
    programs: Any = step.run_chunk
    IWAEDensity(**QUICK).fit(rows(100))
    compiled = programs._cached._cache_size()
    for num in (90, 150):
        IWAEDensity(**{**QUICK, "random_state": num}).fit(rows(num, seed=num))
    assert programs._cached._cache_size() == compiled
    assert _estimator(5) is _estimator(5)
    assert _optimizer(True) is _optimizer(True)


def test_what_can_not_be_used_is_named():
    frame = pandas.DataFrame(rows(30), columns=list("abcd"))
    texts = frame.astype({"b": object}).assign(b=["x", *map(str, range(29))])
    with pytest.raises(ValueError, match="column 'b' has the text 'x' among its numbers"):
        IWAEDensity(**QUICK).fit(texts)
    numbers = IWAEDensity(**QUICK).fit(frame)
    with pytest.raises(ValueError, match="column 'b': could not convert string"):
        numbers.score_samples(texts)
    with pytest.raises(ValueError, match="infinity, in column 'c'"):
        IWAEDensity(**QUICK).fit(frame.assign(c=np.inf))
    with pytest.raises(ValueError, match="infinity, in column 1"):
        IWAEImputer(**QUICK).fit(np.array([[0.0, np.inf], [1.0, 2.0]]))
    with pytest.raises(ValueError, match="two columns are called 'a'"):
        IWAEDensity(**QUICK).fit(pandas.DataFrame(rows(30), columns=list("abca")))
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        IWAEDensity(**QUICK).fit(rows(1))
    constant = IWAEDensity(**QUICK).fit(frame.assign(d=7.0))
    assert np.all(np.isfinite(constant.score_samples(frame.assign(d=7.0))))
    with pytest.raises(ValueError, match="expecting 4 features"):
        constant.score_samples(rows(10)[:, :2])
    filled = IWAEImputer(**QUICK).fit(gaps()).transform(np.full((1, 4), np.nan))
    assert np.all(np.isfinite(filled))


@pytest.mark.slow
def test_a_model_of_self_masking_finds_where_values_went_missing():
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(1000, 1)) + 0.5 * rng.normal(size=(1000, 4))
    missing = (np.arange(4) < 2) & (whole > 0)
    table = np.where(missing, np.nan, whole)
    how = {"n_components": 1, "hidden": (), "k": 5, "num_samples": 300, "random_state": 0, "learning_rate": 1e-2}
    errors = {}
    for kind in ("at-random", "self-masking"):
        fitted = IWAEImputer(**how, missing=kind).fit(table)
        errors[kind] = np.sqrt(np.mean((fitted.transform(table) - whole)[missing] ** 2))
    assert errors["self-masking"] < 0.8 * errors["at-random"]
    assert fitted.model_.missing is not None
    assert np.all(np.asarray(fitted.model_.missing.slope)[:2] > 0.5)
    drawn = fitted.sample(table, 20)
    assert np.mean(drawn[:, missing]) > np.mean(fitted.transform(table)[missing]) - 0.2
