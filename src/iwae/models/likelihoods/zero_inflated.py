"""Counts with more zeros than a negative binomial has."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from iwae.models.distributions import total
from iwae.models.likelihoods.counts import NegativeBinomial, NegativeBinomialLikelihood, quantile


class ZeroInflated(eqx.Module):
    """Counts over the last axis that are zero with probability sigmoid(logits), and else those of `counts`."""

    counts: NegativeBinomial
    logits: Float[Array, "*shape units"]

    @property
    def mean(self) -> Float[Array, "*shape units"]:
        return jax.nn.sigmoid(-self.logits) * self.counts.mean

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """The quantile of Phi(noise), for standard normal `noise`."""
        zeros = jax.nn.sigmoid(jax.lax.stop_gradient(self.logits))
        counts = jax.lax.stop_gradient(self.counts)

        def cdf(count: Array) -> Array:
            return jnp.where(count < 0, 0.0, zeros + (1.0 - zeros) * counts.cdf(count))

        return quantile(cdf, counts.mean, counts.variance, noise)

    def scaled(self, log_factor: Float[Array, "*more units"]) -> "ZeroInflated":
        """With means so many times as large, where a count is no additional zero."""
        return ZeroInflated(self.counts.scaled(log_factor), self.logits)

    def log_prob(self, value: Float[Array, "*more units"], observed: Array | None = None) -> Float[Array, "*result"]:
        """Log probability in nats, summed over units, or over those that `observed` has."""
        counted = jax.nn.log_sigmoid(-self.logits) + self.counts.log_probs(value)
        terms = jnp.where(value == 0, jnp.logaddexp(jax.nn.log_sigmoid(self.logits), counted), counted)
        return total(terms, observed)


class ZeroInflatedNegativeBinomialLikelihood(NegativeBinomialLikelihood):
    """Independent zero-inflated negative binomials (as for gene counts, Lopez et al. 2018, "Deep generative modeling
    for single-cell transcriptomics"): log means, log shapes and the logits of additional zeros come from the network.
    """

    name: ClassVar[str] = "zero-inflated-negative-binomial"
    words: ClassVar[str] = "zero-inflated negative binomial"
    outputs_per_unit: ClassVar[int] = 3

    def distribution(self, outputs: Float[Array, "*rows outputs"]) -> ZeroInflated:  # pyright: ignore[reportIncompatibleMethodOverride]
        counts, logits = jnp.split(outputs, [2 * outputs.shape[-1] // 3], axis=-1)
        return ZeroInflated(super().distribution(counts), logits)

    def initial_bias(self, rows: np.ndarray) -> np.ndarray:
        """The negative binomial with the training moments, the zeros that it lacks (at least 1 %), and means raised by
        as much, so that they are the training means.
        """
        log_mean, log_shape = np.split(super().initial_bias(rows), 2)
        mean, shape = np.exp(log_mean), np.exp(log_shape)
        own = (shape / (shape + mean)) ** shape
        seen = ~np.isnan(np.asarray(rows, np.float64))
        found = np.sum((rows == 0) & seen, axis=0) / np.maximum(seen.sum(axis=0), 1)
        zeros = np.clip((found - own) / np.maximum(1.0 - own, 1e-6), 0.01, 0.9)
        return np.concatenate([log_mean - np.log1p(-zeros), log_shape, np.log(zeros) - np.log1p(-zeros)])
