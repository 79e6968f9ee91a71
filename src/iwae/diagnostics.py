"""How good gradient estimators are on a model at hand, and how even its importance weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from iwae.errors import IWAEError
from iwae.estimators import Estimator, make_estimator
from iwae.model import HierarchicalVAE
from iwae.objectives import Objective
from iwae.randomness import Purpose, purpose_key

# Fewer draws give a variance of a gradient that is itself mostly noise.
FEWEST_DRAWS = 10
GROUPS = ("encoder", "decoder")

OnEstimator = Callable[[int, int], None]


@dataclass(frozen=True)
class GradientQuality:
    """One estimator's gradient of the mean bound of some examples, by one group of parameters, over draws.

    `mean_norm` is the Euclidean norm of the gradient's expectation, and `variance` the sum of its variances over
    the parameters, both corrected for the finite number of draws. `bias` is the norm of the difference between its
    expectation and the reference's, corrected too; what is below `bias_resolution` can't be told from zero.
    """

    mean_norm: float
    variance: float
    bias: float
    bias_resolution: float

    @property
    def signal_to_noise(self) -> float:
        """Norm of the expected gradient over the root of its total variance (Rainforth et al. 2018 take the ratio
        parameter by parameter).
        """
        return self.mean_norm / float(np.sqrt(self.variance)) if self.variance > 0 else float("inf")


@dataclass(frozen=True)
class EstimatorQuality:
    """An objective with its estimator and k, and the quality of its gradient by group of parameters."""

    objective: Objective
    encoder: GradientQuality
    decoder: GradientQuality


@dataclass(frozen=True)
class _Moments:
    """Mean and variance over draws of each parameter's gradient, by group: float64 vectors."""

    mean: dict[str, np.ndarray]
    variance: dict[str, np.ndarray]
    draws: int


def gradient_quality(
    model: HierarchicalVAE,
    x: Float[Array, "batch visible"],
    objectives: Sequence[Objective],
    *,
    draws: int = 200,
    reference_k: int = 1000,
    seed: int = 0,
    on_estimator: OnEstimator | None = None,
) -> list[EstimatorQuality]:
    """The quality of each objective's gradient estimator at fixed binary examples, from `draws` independent draws.

    The reference of the bias is the same objective and estimator with `reference_k` samples, from a tenth as many
    draws, at least 10: for bounds that become tight the decoder's reference is the gradient of log p(x), while the
    encoder's expected gradient itself may vanish as k grows.

    Raises IWAEError for fewer than 10 draws or a reference whose k is below an objective's.
    """
    if draws < FEWEST_DRAWS:
        raise IWAEError(f"--draws must be at least {FEWEST_DRAWS}, got {draws}")
    largest = max(objective.k for objective in objectives)
    if reference_k < largest:
        raise IWAEError(f"--reference-k must be at least the largest k, {largest}, got {reference_k}")
    families = {replace(objective, k=reference_k): None for objective in objectives}
    total = len(families) + len(objectives)
    references: dict[Objective, _Moments] = {}
    key = purpose_key(seed, Purpose.DIAGNOSE)
    for number, family in enumerate(families):
        fewer = max(FEWEST_DRAWS, draws // 10)
        references[family] = _moments(model, x, make_estimator(family), jax.random.fold_in(key, number), fewer)
        _report(on_estimator, number + 1, total)
    results = []
    for number, objective in enumerate(objectives, len(families)):
        found = _moments(model, x, make_estimator(objective), jax.random.fold_in(key, number), draws)
        reference = references[replace(objective, k=reference_k)]
        results.append(EstimatorQuality(objective, *(_quality(found, reference, group) for group in GROUPS)))
        _report(on_estimator, number + 1, total)
    return results


def _report(on_estimator: OnEstimator | None, done: int, total: int) -> None:
    if on_estimator is not None:
        on_estimator(done, total)


def _quality(found: _Moments, reference: _Moments, group: str) -> GradientQuality:
    mean, variance = found.mean[group], found.variance[group]
    noise = variance.sum() / found.draws
    gap_noise = noise + reference.variance[group].sum() / reference.draws
    gap = np.sum((mean - reference.mean[group]) ** 2) - gap_noise
    return GradientQuality(
        mean_norm=float(np.sqrt(max(np.sum(mean**2) - noise, 0.0))),
        variance=float(variance.sum()),
        bias=float(np.sqrt(max(gap, 0.0))),
        bias_resolution=float(np.sqrt(gap_noise)),
    )


def _moments(
    model: HierarchicalVAE, x: Float[Array, "batch visible"], estimator: Estimator, key: Key[Array, ""], draws: int
) -> _Moments:
    mean, squares = _accumulate(model, x, estimator, key, jnp.int32(draws))
    means, variances = (
        {group: np.asarray(vector, np.float64) / x.shape[0] ** power for group, vector in vectors.items()}
        for vectors, power in ((mean, 1), (squares, 2))
    )
    return _Moments(means, {group: vector / (draws - 1) for group, vector in variances.items()}, draws)


@eqx.filter_jit
def _accumulate(
    model: HierarchicalVAE,
    x: Float[Array, "batch visible"],
    estimator: Estimator,
    key: Key[Array, ""],
    draws: Int[Array, ""],
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Mean, and sum of squared deviations from it, of the gradient vector of each group (Welford's recurrence)."""

    def vectors(draw: Int[Array, ""]) -> dict[str, Array]:
        gradient = estimator(model, x, jax.random.fold_in(key, draw)).gradient
        parts = {"encoder": gradient.encoder, "decoder": (gradient.decoder, gradient.prior)}
        return {name: jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(p)]) for name, p in parts.items()}

    def body(
        draw: Int[Array, ""], carry: tuple[dict[str, Array], dict[str, Array]]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        mean, squares = carry
        value = vectors(draw)
        off = jax.tree.map(jnp.subtract, value, mean)
        mean = jax.tree.map(lambda m, d: m + d / (draw + 1), mean, off)
        return mean, jax.tree.map(lambda s, d, v, m: s + d * (v - m), squares, off, value, mean)

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(vectors, jnp.int32(0)))
    return jax.lax.fori_loop(0, draws, body, (zeros, zeros))


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """Pareto k-hat of each example's weights, `[examples, k]` log weights in, `[examples]` out.

    The shape of a generalized Pareto distribution fitted to the largest weights (Vehtari et al. 2024, "Pareto
    smoothed importance sampling"), by ArviZ: below 0.5 the estimate has finite variance, above 0.7 it can't be
    relied on at any practical k. NaN where the weights are all equal or not finite.

    Raises IWAEError for fewer than 100 samples.
    """
    from arviz_stats.base.array import array_stats

    if log_weights.shape[1] < FEWEST_PARETO_SAMPLES:
        raise IWAEError(f"Pareto k-hat needs at least {FEWEST_PARETO_SAMPLES} samples, got {log_weights.shape[1]}")
    rows = []
    for row in np.asarray(log_weights, np.float64):
        usable = bool(np.all(np.isfinite(row))) and np.ptp(row) > 0
        rows.append(float(array_stats.psislw(-row)[1]) if usable else float("nan"))
    return np.array(rows)


FEWEST_PARETO_SAMPLES = 100
