"""`IWAEDensity`: the density of a table's rows, draws, and codes."""

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin, _fit_context  # pyright: ignore[reportPrivateUsage]
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted

from iwae.evaluation.reconstruction import encode
from iwae.randomness import Purpose, purpose_key
from iwae.sklearn.base import OfTable


class IWAEDensity(  # pyright: ignore[reportIncompatibleMethodOverride]
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, OfTable
):
    """log p(x) of rows of numbers, some of which may be missing, and codes of them.

    A frame of pandas or polars may also have categories, texts and truth values (the extra `tables`): these columns are
    categorical and Bernoulli; `likelihood` says what its numbers are: "gaussian", "auto", which finds counts, or
    "age=student-t,visits=poisson". `columns_` is what was decided. Rows are then given and come back as such frames.

    Columns are standardized inside; densities and samples are in the units of the table. `n_components` latents,
    `hidden` tanh layers on either side, `k` samples per row in training. `shared_scale` gives each column one sigma
    instead of one that depends on the latents. `likelihood`, `mask` and `missing` are as in `iwae.Dataset` and
    `iwae.Architecture`. Training ends by itself: `validation_fraction` of the rows are held out, and scored after
    every round (a pass over the rows, or 20 minibatches where that is more; at most `max_iter`); see
    `iwae.training.early_stopping`. `num_samples` importance samples are drawn for each row that is scored.

    Fitted: `model_`, `n_iter_` rounds, `validation_scores_` (nats, of standardized rows).
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on a table `[n, dim]`, NaN where a value is missing."""
        return self._fit(self._checked(X, reset=True))

    def transform(self, X: Any) -> np.ndarray:
        """Codes `[n, n_components]`: the means of q(h | x)."""
        X = self._checked(X, reset=False)
        return encode(self._model, self._standardized(X)).astype(X.dtype)

    def inverse_transform(self, X: Any) -> Any:
        """Means `[n, dim]` of p(x | h) for codes `[n, n_components]`, in the units of the table; of categories the most
        probable ones.
        """
        check_is_fitted(self)
        codes = check_array(X, dtype="float32")
        if codes.shape[1] != self.n_components:
            raise ValueError(f"X has {codes.shape[1]} features, but codes have {self.n_components}")
        return self._original(self._model.decode(jnp.asarray(codes), jax.random.key(0)))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Rows `[n_samples, dim]` drawn from the model."""
        check_is_fitted(self)
        key = purpose_key(int(check_random_state(random_state).randint(2**31 - 1)), Purpose.SAMPLE)
        return self._original(self._model.likelihood.original(self._model.sample_joint(key, n_samples)[0]))

    # DensityMixin has an empty one.
    score = OfTable.score  # pyright: ignore[reportAssignmentType]

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def _original(self, values: Any) -> Any:
        rows = np.asarray(values, np.float64) * self._spread + self._shift
        return self._frame(np.asarray(values)) if self.columns_ else rows
