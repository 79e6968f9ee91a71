"""`IWAEImputer`: what is missing in a table."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import TransformerMixin, _fit_context  # pyright: ignore[reportPrivateUsage]
from sklearn.impute import MissingIndicator
from sklearn.utils._mask import _get_mask  # pyright: ignore[reportPrivateUsage]
from sklearn.utils._missing import is_scalar_nan
from sklearn.utils._param_validation import MissingValues
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted  # pyright: ignore[reportPrivateUsage]

from iwae.data.tables import completed
from iwae.evaluation.imputation import impute, impute_multiple
from iwae.models.architecture import Mask, Missing
from iwae.models.likelihoods import Likelihood
from iwae.sklearn.base import OfTable


class IWAEImputer(TransformerMixin, OfTable):
    """Missing values of tables of numbers, by MIWAE (Mattei & Frellsen 2019), or not-MIWAE where `missing` is
    "self-masking" (Ipsen, Mattei & Frellsen 2021).

    `transform` gives the mean of what is missing given what is observed; `sample` gives completed tables that differ
    as they may. What is observed comes back as it was; a row's values depend on the row alone. Frames with categories
    are as for `IWAEDensity`, and come back as such frames, whole numbers rounded. `missing_values`, `add_indicator` and
    `keep_empty_features` are those of scikit-learn's imputers; all else is as for `IWAEDensity`.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **OfTable._parameter_constraints,
        "missing_values": [MissingValues()],
        "add_indicator": ["boolean"],
        "keep_empty_features": ["boolean"],
    }

    def __init__(
        self,
        *,
        missing_values: Any = np.nan,
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        n_components: int = 10,
        hidden: Sequence[int] = (128, 128),
        shared_scale: bool = True,
        k: int = 20,
        likelihood: str | Likelihood = "gaussian",
        mask: Mask = "zeros",
        missing: Missing = "at-random",
        num_samples: int = 1000,
        learning_rate: float = 3e-3,
        batch_size: int | str = "auto",
        max_iter: int = 500,
        n_iter_no_change: int = 8,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int | bool = 0,
    ):
        super().__init__(
            n_components=n_components,
            hidden=hidden,
            shared_scale=shared_scale,
            k=k,
            likelihood=likelihood,
            mask=mask,
            missing=missing,
            num_samples=num_samples,
            learning_rate=learning_rate,
            batch_size=batch_size,
            max_iter=max_iter,
            n_iter_no_change=n_iter_no_change,
            validation_fraction=validation_fraction,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
        )
        self.missing_values = missing_values
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = is_scalar_nan(self.missing_values)
        return tags

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on a table `[n, dim]`. Columns without any value are left out of it."""
        rows = self._checked(X, reset=True)
        self._seen = ~np.isnan(rows).all(axis=0)
        if not self._seen.any():
            raise ValueError("no column of X has any value: there is nothing to learn from")
        if self.add_indicator:
            self.indicator_ = MissingIndicator(error_on_new=False).fit(rows)
        return self._fit(rows[:, self._seen])

    def transform(self, X: Any) -> Any:
        """The table, each missing value replaced by its mean given the row's observed values, or the most probable
        category.
        """
        given, X = X, self._checked(X, reset=False)
        rows = self._standardized(X[:, self._seen])
        found = impute(self._model, rows, num_samples=self.num_samples, seed=self._seed)
        return self._completed_frame(given, X, found) if self.columns_ else self._completed(X, found)

    def sample(self, X: Any, m: int = 20) -> Any:
        """`m` completed tables `[m, n, features out]`, or a list of frames: multiple imputation. Equal rows have draws
        of their own.
        """
        given, X = X, self._checked(X, reset=False)
        rows = self._standardized(X[:, self._seen])
        tables = impute_multiple(self._model, rows, m, num_samples=self.num_samples, seed=self._seed)
        if self.columns_:
            return [self._completed_frame(given, X, table) for table in tables]
        return np.stack([self._completed(X, table) for table in tables])

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns that `transform` gives."""
        check_is_fitted(self)
        names: Any = _check_feature_names_in(self, input_features)
        kept: Any = names if self.keep_empty_features else names[self._seen]
        if not self.add_indicator:
            return kept
        indicators: Any = self.indicator_.get_feature_names_out(names)
        return np.concatenate([kept, indicators])

    def _completed(self, X: np.ndarray, standardized: np.ndarray) -> np.ndarray:
        """The table as it goes out, from standardized values of the columns that were learned."""
        filled = np.zeros_like(X)
        filled[:, self._seen] = standardized * self._spread + self._shift
        table = np.where(np.isnan(X), filled, X)
        table = table if self.keep_empty_features else table[:, self._seen]
        if not self.add_indicator:
            return table
        indicators: Any = self.indicator_.transform(X)
        return np.hstack([table, indicators])

    def _completed_frame(self, given: Any, X: np.ndarray, rows: np.ndarray) -> Any:
        """The frame as it goes out."""
        frame = completed(given, self.columns_, rows)
        if not self.add_indicator:
            return frame
        indicators: Any = self.indicator_.transform(X)
        names = self.indicator_.get_feature_names_out(np.asarray(given.columns, object))
        added = dict(zip(names, indicators.T, strict=True))
        return frame.assign(**added) if hasattr(frame, "assign") else frame.with_columns(**added)

    def _checked(self, X: Any, *, reset: bool) -> np.ndarray:
        checked = super()._checked(X, reset=reset)
        if self.columns_:
            if not is_scalar_nan(self.missing_values):
                raise ValueError(f"missing_values {self.missing_values!r} is for numbers: a frame's are NaN or None")
            return checked
        mask: Any = _get_mask(checked, self.missing_values)
        return np.where(mask, np.nan, checked)
