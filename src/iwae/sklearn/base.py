"""What the scikit-learn estimators share: a table in, a trained model and densities of rows."""

import functools
import numbers
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import equinox as eqx
import numpy as np
import optax
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import (  # pyright: ignore[reportPrivateUsage]
    _check_feature_names,
    _check_n_features,
    check_is_fitted,
    validate_data,
)

from iwae.data.columns import Column, Reading
from iwae.data.dataset import Dataset, of_table
from iwae.data.tables import learn_columns, to_frame, to_rows
from iwae.estimators.base import Estimator
from iwae.estimators.objective import make_estimator
from iwae.evaluation.examples import prepare_examples
from iwae.evaluation.imputation import numbers_of_content
from iwae.evaluation.log_weights import log_likelihood_of_prepared
from iwae.models.architecture import Architecture, Mask, Missing
from iwae.models.likelihoods import GaussianLikelihood, Likelihood, likelihood_of
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key
from iwae.training.early_stopping import fit_until
from iwae.training.optim import Directions
from iwae.training.progress import progress_line

LARGE_TABLE = 10_000
MOST_HELD_OUT = 2000
HELD_OUT_SAMPLES = 64
"""Samples per example when held-out rows are scored while training."""


class OfTable(BaseEstimator):
    """A model of a table's rows with one Gaussian layer of latents, trained by DReG until rows that are held out say
    that it is enough.
    """

    columns_: tuple[Column, ...] = ()
    _learned_columns: tuple[Column, ...] | None = None
    _backend: Literal["pandas", "polars"]
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [Interval(numbers.Integral, 1, None, closed="left")],
        "hidden": [tuple, list],
        "shared_scale": ["boolean"],
        "k": [Interval(numbers.Integral, 1, None, closed="left")],
        "likelihood": [str, Likelihood],
        "mask": [StrOptions({"zeros", "concatenate"})],
        "missing": [StrOptions({"at-random", "self-masking"})],
        "num_samples": [Interval(numbers.Integral, 1, 100_000, closed="both")],
        "learning_rate": [Interval(numbers.Real, 0, None, closed="neither")],
        "batch_size": [Interval(numbers.Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "max_iter": [Interval(numbers.Integral, 1, None, closed="left")],
        "n_iter_no_change": [Interval(numbers.Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(numbers.Real, 0, 1, closed="neither")],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        n_components: int = 10,
        hidden: Sequence[int] = (128, 128),
        shared_scale: bool = False,
        k: int = 20,
        likelihood: str | Likelihood = "gaussian",
        mask: Mask = "zeros",
        missing: Missing = "at-random",
        num_samples: int = 500,
        learning_rate: float = 3e-3,
        batch_size: int | str = "auto",
        max_iter: int = 500,
        n_iter_no_change: int = 8,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int | bool = 0,
    ):
        self.n_components = n_components
        self.hidden = hidden
        self.shared_scale = shared_scale
        self.k = k
        self.likelihood = likelihood
        self.mask = mask
        self.missing = missing
        self.num_samples = num_samples
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.n_iter_no_change = n_iter_no_change
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @property
    def model_(self) -> HierarchicalVAE:
        """The model, for rows in their own units: for `iwae.save`, `iwae.log_likelihood` and so on; for rows that
        `iwae.data.tables.to_rows(frame, columns_)` gives, where it was fitted to a frame with categories.
        """
        check_is_fitted(self)
        if not self._is_plain:
            return self._model
        return self._model.with_likelihood(
            GaussianLikelihood(tuple(self._shift.tolist()), tuple(self._spread.tolist()), missing=True)
        )

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x) of every row in nats, of what is observed: L_k with k = `num_samples`, a function of the row alone.
        float64 `[n]`.
        """
        rows = self._standardized(self._checked(X, reset=False))
        numbers = numbers_of_content(rows)
        x = prepare_examples(self._model.likelihood, rows, numbers)
        found = log_likelihood_of_prepared(self._model, x, numbers, num_samples=self.num_samples, seed=self._seed)
        return found - np.where(np.isnan(rows), 0.0, np.log(self._spread)).sum(axis=1)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`."""
        return float(self.score_samples(X).mean())

    def _fit(self, X: np.ndarray) -> Self:
        """Trains on checked rows, NaN where a value is missing."""
        random, dim = check_random_state(self.random_state), X.shape[1]
        again = self.warm_start and self._learned_columns == self.columns_ and self._model.visible == dim
        self._seed = int(random.randint(2**31 - 1))
        if not again:
            self._shift, self._spread = np.zeros(dim), np.ones(dim)
            if self._is_plain:
                # Standardized here: as a constant of the likelihood it would be compiled anew for every table.
                of_data: Any = GaussianLikelihood.of_data(X)
                self._shift, self._spread = np.array(of_data.shift), np.array(of_data.spread)
        rows = self._standardized(X)
        start = self._model if again else self._new_model(rows)
        order = np.random.default_rng(self._seed).permutation(len(rows))
        count = min(max(1, int(self.validation_fraction * len(rows))), MOST_HELD_OUT)
        held_out, trained = np.split(order, [count])
        numbers = np.arange(len(held_out))
        x = prepare_examples(start.likelihood, rows[held_out], numbers)
        batch_size = self.batch_size
        if isinstance(batch_size, str):
            batch_size = 64 if len(rows) < LARGE_TABLE else 256

        def score(model: HierarchicalVAE) -> float:
            return float(log_likelihood_of_prepared(model, x, numbers, num_samples=HELD_OUT_SAMPLES).mean())

        with progress_line(self.max_iter, bool(self.verbose)) as line:
            self._model, self.validation_scores_ = fit_until(
                start,
                rows[trained],
                score,
                _estimator(self.k),
                _optimizer(self._has_shared_scale),
                learning_rate=self.learning_rate,
                batch_size=batch_size,
                max_rounds=self.max_iter,
                patience=self.n_iter_no_change,
                seed=self._seed,
                callback=lambda done, found: line.update(done, found, float("nan")),
            )
        self.n_iter_, self._learned_columns = len(self.validation_scores_), self.columns_
        return self

    @property
    def _is_plain(self) -> bool:
        """Whether all columns are Gaussian, standardized here."""
        return self.likelihood == "gaussian" and not self.columns_

    @property
    def _has_shared_scale(self) -> bool:
        return self.shared_scale and self._is_plain

    def _new_model(self, rows: np.ndarray) -> HierarchicalVAE:
        if self._is_plain:
            likelihood: Likelihood = GaussianLikelihood(missing=True)
        else:
            how = self.likelihood
            data = (
                of_table({"train": rows}, self.columns_) if self.columns_ else Dataset.from_arrays(rows, likelihood=how)
            )
            likelihood = replace(likelihood_of(data), missing=True)
        latent, hidden = (int(self.n_components),), (tuple(self.hidden),)
        options: Any = {"mask": self.mask, "missing": self.missing}
        architecture = Architecture(rows.shape[1], latent, hidden, **options)
        key = purpose_key(self._seed, Purpose.INITIALIZE)
        model = HierarchicalVAE.create(architecture, key, likelihood, likelihood.initial_bias(rows))
        return _with_shared_scale(model) if self._has_shared_scale else model

    def _checked(self, X: Any, *, reset: bool) -> np.ndarray:
        """Rows `[n, dim]` of floating point numbers, NaN where a value is missing. Raises ValueError that names the
        column which holds what can't be used.
        """
        if not reset:
            check_is_fitted(self)
        names = [str(name) for name in getattr(X, "columns", ())]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"two columns are called {twice[0]!r}: rename one")
        if reset:
            self.columns_ = self._columns_of(X)
        if self.columns_:
            return self._rows_of_frame(X, reset=reset)
        how: dict[str, Any] = {"ensure_all_finite": False, "dtype": (np.float64, np.float32)}
        try:
            checked: Any = validate_data(self, X, reset=reset, copy=True, ensure_min_samples=2 if reset else 1, **how)
        except (ValueError, TypeError) as error:
            for name in names:
                try:
                    np.asarray(X[name], np.float64)
                except (ValueError, TypeError):
                    raise type(error)(f"column {name!r}: {error}") from error
            raise
        infinite = np.flatnonzero(np.isinf(checked).any(axis=0))
        if len(infinite):
            name = repr(names[infinite[0]]) if names else int(infinite[0])
            raise ValueError(f"Input X contains infinity, in column {name}: NaN is what marks a missing value")
        return checked

    def _columns_of(self, X: Any) -> tuple[Column, ...]:
        """What the columns of a frame with categories, texts or truth values are; none for other tables."""
        if all(kind in "iuf" for kind in _kinds_of(X)):
            return ()
        if not isinstance(self.likelihood, str):
            raise ValueError("a frame with categories needs the names of likelihoods, such as auto or age=poisson")
        found = learn_columns({"train": X}, Reading("" if self.likelihood == "gaussian" else self.likelihood))
        if self.likelihood == "gaussian":
            found = tuple(replace(c, kind="gaussian") if c.type in ("integer", "real") else c for c in found)
        self._backend = "pandas" if hasattr(X, "iloc") else "polars"
        return found

    def _rows_of_frame(self, X: Any, *, reset: bool) -> np.ndarray:
        """Rows of a frame with categories, levels by their numbers."""
        if not hasattr(X, "columns"):
            raise ValueError(
                f"the model was fitted to a frame with categories: give such a frame, not {type(X).__name__}"
            )
        _check_feature_names(self, X, reset=reset)
        _check_n_features(self, X, reset=reset)
        if len(X) < (2 if reset else 1):
            raise ValueError(f"Found array with {len(X)} sample(s) while a minimum of {2 if reset else 1} is required.")
        return to_rows(X, self.columns_)

    def _frame(self, rows: np.ndarray) -> Any:
        """A frame of rows, of the kind that it was fitted to."""
        return to_frame(rows, self.columns_, self._backend)

    def _standardized(self, X: np.ndarray) -> np.ndarray:
        return ((X - self._shift) / self._spread).astype(np.float32)


def _kinds_of(X: Any) -> str:
    """NumPy's letters for the types of a frame's columns, O for what NumPy does not have; none of other tables."""
    if not hasattr(X, "columns") or not hasattr(X, "dtypes"):
        return ""
    # Numbers may be in pandas's columns of objects.
    kinds = list(X.infer_objects().dtypes if hasattr(X, "infer_objects") else X.dtypes)
    # Polars and extension types of pandas say what they are by methods and attributes of their own.
    return "".join("f" if getattr(kind, "is_numeric", bool)() else getattr(kind, "kind", "O") for kind in kinds)


@functools.cache
def _estimator(k: int) -> Estimator:
    """The same object for the same k, so that what was compiled with it is found again."""
    return make_estimator("iwae:dreg", k=k)


@functools.cache
def _optimizer(shared_scale: bool) -> Directions:
    """Adam without a learning rate, for gradients of bounded size; with `shared_scale` the scales stay constants."""
    parts = [optax.clip_by_global_norm(50.0), optax.scale_by_adam()]
    if shared_scale:
        parts.append(optax.stateless(lambda updates, _: _with_shared_scale(updates)))
    chain = optax.chain(*parts, optax.scale(-1.0))
    return Directions(chain.init, chain.update)


def _with_shared_scale(model: Any) -> Any:
    """Without weights from features to the sigmas of a Gaussian visible layer: what is left is their bias."""
    weight = model.decoder[0].outputs.weight
    return eqx.tree_at(lambda m: m.decoder[0].outputs.weight, model, weight.at[:, weight.shape[1] // 2 :].set(0.0))
