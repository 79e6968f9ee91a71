"""Bidirectional Monte Carlo (Grosse et al. 2015): log p(x) from both sides, where an exact posterior sample is known.

Of data that are simulated from the model it is: the latents that they came from. What the bounds then enclose is
log p(x) of simulated data; of real data only the lower bound is known, and the gap tells what to think of it as far as
they are like simulated ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from iwae.arithmetic import standard_arithmetic
from iwae.errors import check_count
from iwae.evaluation.annealed import warn_of_low_acceptance
from iwae.evaluation.chains import AnnealedSettings, check_latents, run_chains, tune
from iwae.evaluation.examples import example_batches, log_mean
from iwae.evaluation.likelihood import check_ks, standard_error
from iwae.evaluation.log_weights import importance_log_weights
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key


@dataclass(frozen=True)
class Bracket:
    """log p(x) of simulated examples from below and above, in nats: float64 arrays `[n]`.

    `lower` is the log of the mean of `samples` weights, at most log p(x) in expectation. `upper` is the same with one
    of the weights that of the exact posterior sample, or of the chain that goes backwards from it: at least log p(x)
    in expectation. `steps` is the number of temperatures; without any, the weights are those of importance sampling,
    and `lower` is L_k.
    """

    method: Literal["importance", "ais"]
    samples: int
    steps: int
    lower: np.ndarray
    upper: np.ndarray

    def __repr__(self) -> str:
        how = f"{self.samples} chains of {self.steps} steps" if self.steps else f"{self.samples} samples"
        ends = f"log p(x) from {np.mean(self.lower):.2f} to {np.mean(self.upper):.2f} nats"
        return f"Bracket({ends}, {self.gap:.2f} ± {self.stderr:.2f} apart, of {len(self.lower):,} examples; {how})"

    @property
    def gap(self) -> float:
        """Mean of upper - lower: at least how far either lies from log p(x) on average, in expectation."""
        return float(np.mean(self.upper - self.lower))

    @property
    def stderr(self) -> float:
        """Standard error of `gap` over examples; NaN for a single one."""
        return standard_error(self.upper - self.lower)


def certify(
    model: HierarchicalVAE,
    *,
    num_examples: int = 100,
    ks: Sequence[int] = (50, 500, 5000),
    steps: Sequence[int] = (10, 30, 100),
    settings: AnnealedSettings | None = None,
    seed: int = 0,
) -> Iterator[Bracket]:
    """Brackets of log p(x) of data simulated from the model: L_k for each of `ks`, then AIS for each number of `steps`.

    The chains are as `settings` say, but for their steps and seed.

    Raises IWAEError for binary latents, a number of examples below 1, and what `ladder` and `AnnealedSettings` refuse,
    all before the first bracket.
    """
    check_count("num_examples", num_examples)
    check_latents(model)
    budgets = [replace(settings or AnnealedSettings(), steps=count, seed=seed) for count in steps]
    rungs = check_ks(ks)
    x, exact = simulate(model, num_examples, seed)

    def brackets() -> Iterator[Bracket]:
        yield from importance_brackets(model, x, exact, rungs, seed)
        for budget in budgets:
            yield annealed_bracket(model, x, exact, budget)

    return brackets()


@standard_arithmetic()
def simulate(
    model: HierarchicalVAE, num: int, seed: int
) -> tuple[Float[np.ndarray, "num visible"], Float[np.ndarray, "num dim"]]:
    """Draws of p(x, h): examples, and the latents of all layers side by side; each a function of its number alone."""
    x, latents = _simulate(model, purpose_key(seed, Purpose.SIMULATE), jnp.arange(num))
    return np.asarray(x), np.concatenate([np.asarray(layer) for layer in latents], axis=-1)


@eqx.filter_jit
def _simulate(
    model: HierarchicalVAE, key: Key[Array, ""], numbers: Int[Array, " num"]
) -> tuple[Array, tuple[Array, ...]]:
    drawn = jax.vmap(lambda i: model.sample_joint(jax.random.fold_in(key, i), 1))(numbers)
    return jax.tree.map(lambda array: array[:, 0], drawn)


@standard_arithmetic()
def importance_brackets(
    model: HierarchicalVAE,
    x: Float[np.ndarray, "n visible"],
    exact: Float[np.ndarray, "n dim"],
    ks: Sequence[int],
    seed: int = 0,
) -> list[Bracket]:
    """L_k and its upper bound for each k, from the same draws. Raises IWAEError as `ladder` does."""
    rungs = check_ks(ks)
    pairs: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in rungs]
    for batch in example_batches(x, np.arange(len(x))):
        log_weights = importance_log_weights(model, batch, rungs[-1], seed).astype(np.float64)
        ends = exact[batch.start : batch.start + batch.real]
        of_exact = np.asarray(_log_weight_of(model, batch.x[: batch.real], jnp.asarray(ends)), np.float64)
        for values, k in zip(pairs, rungs, strict=True):
            values.append(_both_sides(log_weights[:k], of_exact))
    return [
        Bracket("importance", k, 0, *(np.concatenate(side) for side in zip(*values, strict=True)))
        for k, values in zip(rungs, pairs, strict=True)
    ]


@eqx.filter_jit
def _log_weight_of(model: HierarchicalVAE, x: Array, flat: Array) -> Float[Array, " n"]:
    latents = tuple(jnp.split(flat, list(np.cumsum(model.latent)[:-1]), axis=-1))
    return model.log_joint(x, latents) - model.log_posterior(x, latents)


@standard_arithmetic()
def annealed_bracket(
    model: HierarchicalVAE,
    x: Float[np.ndarray, "n visible"],
    exact: Float[np.ndarray, "n dim"],
    settings: AnnealedSettings,
) -> Bracket:
    """AIS of each example and its upper bound, for examples `x` with one exact draw each from p(h | x).

    Both use the same tuned step sizes, from chains that don't know the exact draw. Warns as `iwae.ais` does.
    """
    found, acceptance = [], []
    for batch in example_batches(x, np.arange(len(x))):
        tuned = tune(model, batch, settings)
        forwards = run_chains(model, tuned, settings, batch.every_chain(settings.chains))
        ends = exact[batch.start : batch.start + batch.real]
        backwards = run_chains(model, tuned, settings, batch.every_chain(1), ends)
        found.append(_both_sides(forwards.log_weights.reshape(batch.real, -1).T, backwards.log_weights))
        acceptance.append(forwards.acceptance.mean(axis=1).reshape(batch.real, -1).mean(axis=1))
    warn_of_low_acceptance(np.concatenate(acceptance))
    lower, upper = (np.concatenate(side) for side in zip(*found, strict=True))
    return Bracket("ais", settings.chains, settings.steps, lower, upper)


def _both_sides(log_weights: np.ndarray, of_exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log mean of log weights `[k, n]`, and the same with the last of them replaced by that of the exact sample.

    Sharing the others, the two are correlated, and their difference is known better than either.
    """
    return log_mean(log_weights), log_mean(np.concatenate([log_weights[:-1], of_exact[None]]))
