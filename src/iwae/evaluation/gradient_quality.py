"""How good gradient estimators are on a model at hand."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from iwae.arithmetic import standard_arithmetic
from iwae.errors import IWAEError
from iwae.estimators.base import Estimator
from iwae.estimators.objective import Objective, make_estimator
from iwae.estimators.table import OBJECTIVES
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

# Fewer draws give a variance of a gradient that is itself mostly noise.
FEWEST_DRAWS = 10
GROUPS = ("encoder", "decoder")

OnEstimator = Callable[[int, int], None]


@dataclass(frozen=True)
class GradientQuality:
    """One estimator's gradient of the mean bound of some examples, by one group of parameters, over draws.

    `mean_norm` is the Euclidean norm of the gradient's expectation, and `variance` the sum of its variances over
    the parameters, both corrected for the finite number of draws. `bias` is the distance between its expectation
    and the gradient of its own objective at its own k; `to_large_k` that to the gradient of its objective with the
    reference's k, which for a bound that becomes tight is, for the decoder, that of log p(x). The encoder's own
    gradient vanishes as a bound becomes tight, so for it the latter is no fault of the estimator.
    """

    mean_norm: float
    variance: float
    bias: "Gap"
    to_large_k: "Gap"

    @property
    def signal_to_noise(self) -> float:
        """Norm of the expected gradient over the root of its total variance (Rainforth et al. 2018 take the ratio
        parameter by parameter).
        """
        return self.mean_norm / float(np.sqrt(self.variance)) if self.variance > 0 else float("inf")


@dataclass(frozen=True)
class Gap:
    """The Euclidean norm of the difference of two expected gradients, corrected for the finite number of draws.

    What is not above `resolution` can't be told from zero: two equal expectations are found that far apart in at
    most about 5 % of cases. Whatever the correlations of the parameters are: the squared distance is a weighted sum
    of chi-squares, and of those with one mean the widest, beyond 1.54 times the mean, is a single one (Szekely &
    Bakirov 2003).
    """

    norm: float
    resolution: float

    @property
    def is_visible(self) -> bool:
        """Whether it can be told from zero."""
        return self.norm > self.resolution


@dataclass(frozen=True)
class EstimatorQuality:
    """An objective with its estimator and k (of a custom estimator, the objective that it was held against), and the
    quality of its gradient by group of parameters.
    """

    objective: Objective
    encoder: GradientQuality
    decoder: GradientQuality


@dataclass(frozen=True)
class _Moments:
    """Mean and variance over draws of each parameter's gradient, by group: float64 vectors."""

    mean: dict[str, np.ndarray]
    variance: dict[str, np.ndarray]
    draws: int


@standard_arithmetic()
def gradient_quality(
    model: HierarchicalVAE,
    x: Float[Array, "batch visible"],
    objectives: Sequence[Objective | tuple[Estimator, Objective]],
    *,
    draws: int = 200,
    reference_k: int = 1000,
    seed: int = 0,
    on_estimator: OnEstimator | None = None,
) -> list[EstimatorQuality]:
    """The quality of each objective's gradient estimator at fixed examples, from `draws` independent draws. A custom
    estimator comes with the objective, and its k, that it is held against: `(MyEstimator(5), Objective("iwae", k=5))`.

    The biases are against `unbiased` estimators: of the same k from as many draws of their own, and of `reference_k`
    samples from a tenth as many, at least 10.

    Raises IWAEError as `check_counts` does.
    """
    pairs = [(make_estimator(given), given) if isinstance(given, Objective) else given for given in objectives]
    targets = [objective for _, objective in pairs]
    check_counts(targets, draws, reference_k)
    binary = not model.is_reparameterized
    own = [unbiased(objective, binary) for objective in targets]
    large = [unbiased(objective.changed(k=reference_k), binary) for objective in targets]
    fewer = max(FEWEST_DRAWS, draws // 10)
    # An objective stands here once more where it is its own reference: a bias against itself would be no test.
    work = [(estimator, draws) for estimator, _ in pairs]
    work += [(make_estimator(o), draws) for o in dict.fromkeys(own)]
    work += [(make_estimator(o), fewer) for o in dict.fromkeys(large)]
    key = purpose_key(seed, Purpose.DIAGNOSE)
    moments: list[_Moments] = []
    for number, (estimator, count) in enumerate(work):
        moments.append(_moments(model, x, estimator, jax.random.fold_in(key, number), count))
        if on_estimator is not None:
            on_estimator(number + 1, len(work))
    first = len(objectives)
    of_own = dict(zip(dict.fromkeys(own), moments[first:], strict=False))
    of_large = dict(zip(dict.fromkeys(large), moments[first + len(of_own) :], strict=True))
    return [
        EstimatorQuality(o, *(_quality(found, of_own[same_k], of_large[large_k], group) for group in GROUPS))
        for o, found, same_k, large_k in zip(targets, moments, own, large, strict=False)
    ]


@standard_arithmetic()
def seconds_per_gradient(
    model: HierarchicalVAE, x: Float[Array, "batch visible"], objective: Objective, draws: int = 200
) -> float:
    """Wall-clock seconds that one gradient of `x` takes, the mean over `draws` of one compiled loop, once compiled."""
    key, estimator = purpose_key(0, Purpose.DIAGNOSE), make_estimator(objective)
    jax.block_until_ready(_accumulate(model, x, estimator, key, jnp.int32(1)))
    start = time.perf_counter()
    jax.block_until_ready(_accumulate(model, x, estimator, key, jnp.int32(draws)))
    return (time.perf_counter() - start) / draws


def check_counts(objectives: Sequence[Objective], draws: int, reference_k: int) -> None:
    """Raises IWAEError for fewer than 10 draws or a reference whose k is below an objective's."""
    if draws < FEWEST_DRAWS:
        raise IWAEError(f"`draws` must be at least {FEWEST_DRAWS}, got {draws}")
    largest = max(objective.k for objective in objectives)
    if reference_k < largest:
        raise IWAEError(f"`reference_k` must be at least the largest k, {largest}, got {reference_k}")


def unbiased(objective: Objective, binary: bool) -> Objective:
    """The same objective with an estimator that is unbiased for it, the least noisy that it has.

    For L_k, which vimco and ovis follow too, and other bounds that is DReG; with binary latents VIMCO or the score
    function. PIWAE stands for two bounds, and its DReG is unbiased for each. Wake-phi is no gradient of a bound at
    its k: it is its own reference, and at a large k that of the inclusive divergence.
    """
    name = "iwae" if objective.name in ("vimco", "ovis") else objective.name
    if name == "rws":
        sleeps = objective.parameters.get("sleep", 0.0)
        return objective if binary or sleeps else Objective("rws", objective.k, estimator="rws-dreg")
    if binary and name == "iwae" and objective.k > 1:
        return Objective("vimco", objective.k)
    row = OBJECTIVES[name]
    estimator = "score" if binary else "dreg" if "dreg" in row.methods else "reparameterized"
    # A parameter of the estimator, such as DReG's alpha, does not belong to the objective.
    parameters = {p.name: objective.parameters[p.name] for p in row.parameters}
    return Objective(name, objective.k, estimator=estimator, backward=objective.backward, parameters=parameters)


def _quality(found: _Moments, own: _Moments, large: _Moments, group: str) -> GradientQuality:
    mean, variance = found.mean[group], found.variance[group]
    return GradientQuality(
        mean_norm=float(np.sqrt(max(np.sum(mean**2) - variance.sum() / found.draws, 0.0))),
        variance=float(variance.sum()),
        bias=_gap(found, own, group),
        to_large_k=_gap(found, large, group),
    )


# A chi-square of one degree of freedom is above this in 5 % of cases.
FIVE_PERCENT = 3.841


def _gap(found: _Moments, reference: _Moments, group: str) -> Gap:
    noise = sum(side.variance[group].sum() / side.draws for side in (found, reference))
    distance = np.sum((found.mean[group] - reference.mean[group]) ** 2)
    norm = np.sqrt(max(distance - noise, 0.0))
    return Gap(float(norm), float(np.sqrt((FIVE_PERCENT - 1.0) * noise)))


def _moments(
    model: HierarchicalVAE, x: Float[Array, "batch visible"], estimator: Estimator, key: Key[Array, ""], draws: int
) -> _Moments:
    mean, squares = _accumulate(model, x, estimator, key, jnp.int32(draws))
    means, variances = (
        {group: np.asarray(vector, np.float64) for group, vector in vectors.items()} for vectors in (mean, squares)
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
