"""Annealed importance sampling (Neal 2001): an unbiased estimate of p(x) that is close to it where L_k is not."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from iwae.arithmetic import standard_arithmetic
from iwae.data.dataset import Dataset, Split
from iwae.evaluation.batches import OnExamples
from iwae.evaluation.chains import AnnealedSettings, Start, check_latents, run_chains, tune
from iwae.evaluation.examples import example_batches, log_mean, prepared
from iwae.evaluation.likelihood import standard_error
from iwae.models.vae import HierarchicalVAE

TOO_LOW_ACCEPTANCE = 0.1


@dataclass(frozen=True)
class AnnealedLikelihoods:
    """Annealed importance sampling of some examples; float64 arrays `[n]` unless another shape is given.

    `log_likelihood` is the log of the mean weight of an example's chains, in nats: a lower bound of log p(x) in
    expectation. `stderr` is its standard error over the chains, by the delta method: NaN for a single chain, and an
    underestimate where the effective sample size is small. `acceptance` is the mean probability with which moves were
    accepted, `acceptance_by_step` `[steps]` its mean over examples at each temperature. `effective_sample_size` is
    (sum w)^2 / sum w^2, from 1 to the number of chains. `log_weights` is `[chains, n]`.
    """

    log_weights: np.ndarray
    acceptance: np.ndarray
    acceptance_by_step: np.ndarray
    settings: AnnealedSettings

    def __repr__(self) -> str:
        chains, count = self.log_weights.shape
        figures = f"NLL {self.nll:.2f} ± {self.nll_stderr:.2f} nats of {count:,} examples"
        how = f"{chains} chains of {self.settings.steps} steps, acceptance {np.mean(self.acceptance):.2f}"
        return f"AnnealedLikelihoods({figures}; {how})"

    @property
    def log_likelihood(self) -> np.ndarray:
        return log_mean(self.log_weights)

    @property
    def stderr(self) -> np.ndarray:
        chains = len(self.log_weights)
        if chains == 1:
            return np.full(self.log_weights.shape[1], np.nan)
        relative = np.exp(self.log_weights - self.log_likelihood)
        return np.std(relative, axis=0, ddof=1) / math.sqrt(chains)

    @property
    def effective_sample_size(self) -> np.ndarray:
        weights = np.exp(self.log_weights - np.max(self.log_weights, axis=0))
        return np.sum(weights, axis=0) ** 2 / np.sum(weights**2, axis=0)

    @property
    def nll(self) -> float:
        """Mean of -log p(x) as estimated, in nats."""
        return -float(np.mean(self.log_likelihood))

    @property
    def nll_stderr(self) -> float:
        """Standard error of `nll` over chains and examples; NaN for a single example."""
        return standard_error(self.log_likelihood)


@standard_arithmetic()
def ais(
    model: HierarchicalVAE,
    data: Dataset | ArrayLike,
    split: Split = "test",
    *,
    chains: int = 16,
    steps: int = 100,
    leapfrogs: int = 10,
    start: Start = "encoder",
    seed: int = 0,
    indices: Sequence[int] | np.ndarray | None = None,
    on_examples: OnExamples | None = None,
) -> AnnealedLikelihoods:
    """log p(x) of a dataset's split, or of stored rows, by annealed importance sampling (Neal 2001; Wu et al. 2017).

    A chain starts at a draw from q(h | x), or from p(h), and goes to the posterior p(h | x) over `steps` temperatures,
    with a Hamiltonian Monte Carlo move of all latent layers jointly at each. The mean of the chains' weights is an
    unbiased estimate of p(x), and its log a lower bound of log p(x) in expectation, which rises with `chains` and
    `steps`. The step sizes are tuned per example and temperature in a first round of 4 chains, and are fixed in the
    round that counts, which has draws of its own.

    Grey values are binarized as for `iwae.likelihoods`. An example's draws depend on `seed`, its index and the chain's
    number alone: its figure is the same, to the bit, whichever `indices` (by default all) are measured in one call,
    and fewer chains are the first of more. Memory grows with neither the examples nor the chains.
    `on_examples(done, total)` is called after each batch.

    Raises IWAEError for binary latents, rows that the model can't score, and as `AnnealedSettings` does. Warns where an
    example's moves are accepted with a mean probability below 0.1.
    """
    settings = AnnealedSettings(chains, steps, leapfrogs, start, seed)
    check_latents(model)
    model, rows, numbers = prepared(model, data, split, indices)
    log_weights, acceptance, by_step = [], [], np.zeros(steps)
    for batch in example_batches(rows, numbers):
        found = run_chains(model, tune(model, batch, settings), settings, batch.every_chain(chains))
        log_weights.append(found.log_weights.reshape(batch.real, chains).T)
        acceptance.append(found.acceptance.mean(axis=1).reshape(batch.real, chains).mean(axis=1))
        by_step += found.acceptance.sum(axis=0) / (len(rows) * chains)
        if on_examples is not None:
            on_examples(batch.start + batch.real, len(rows))
    result = AnnealedLikelihoods(np.concatenate(log_weights, axis=1), np.concatenate(acceptance), by_step, settings)
    warn_of_low_acceptance(result.acceptance)
    return result


def low_acceptance(acceptance: np.ndarray) -> str | None:
    """What to say where an example's moves were accepted with a mean probability below 0.1; None where none's were."""
    low = int(np.sum(acceptance < TOO_LOW_ACCEPTANCE))
    if not low:
        return None
    return (
        f"{low} of {len(acceptance)} examples have moves that are accepted in under 10 % of cases: their log p(x) is a"
        " loose lower bound; raise `steps`, or set `start` to the other of 'encoder' and 'prior'"
    )


def warn_of_low_acceptance(acceptance: np.ndarray) -> None:
    """Warns as `low_acceptance` says."""
    if (text := low_acceptance(acceptance)) is not None:
        warnings.warn(text, stacklevel=3)
