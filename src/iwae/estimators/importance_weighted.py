"""Estimators by path derivatives that are made for the importance weighted bound alone: DReG(alpha) and PIWAE."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from iwae import bounds
from iwae.errors import IWAEError
from iwae.estimators.base import WeightedEstimator, check_groups, normalized_weights, traced, weights_within_groups
from iwae.estimators.gradients import Coefficients, EncoderDerivative


def _finite(alpha: float) -> Float[Array, ""]:
    if not math.isfinite(alpha):
        raise IWAEError(f"DReG(alpha) needs a finite alpha, got {alpha!r}")
    return traced(alpha)


class DReGAlpha(WeightedEstimator):
    """DReG(alpha): alpha w~_i + (1 - 2 alpha) w~_i^2 times the path derivative, for the encoder; IWAE's decoder.

    Tucker et al. (2019): it interpolates between DReG for the IWAE bound (alpha = 0) and RWS-DReG, the
    doubly reparameterized wake-phi update of reweighted wake-sleep, w~_i - w~_i^2 (alpha = 1). At alpha = 1/2 it
    is half of STL. Unbiased for the IWAE bound at alpha = 0, and for wake-phi at alpha = 1. Raises IWAEError for an
    alpha that is not finite.
    """

    derivative: ClassVar[EncoderDerivative] = "path"
    alpha: Float[Array, ""] = eqx.field(converter=_finite)

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        weights = normalized_weights(log_weights)
        encoder = self.alpha * weights + (1.0 - 2.0 * self.alpha) * jnp.square(weights)
        return Coefficients(bounds.iwae(log_weights), weights, encoder)


class PIWAE(WeightedEstimator):
    """PIWAE(M, K): the decoder follows L_{MK}, the encoder MIWAE(M, K), all from the same `num_samples` = M K
    samples in `num_groups` = M groups.

    Rainforth et al. (2018), section 5. Each part is unbiased for its own bound; the value is L_{MK}.
    """

    derivative: ClassVar[EncoderDerivative] = "total"
    num_groups: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        """Raises IWAEError when the samples can't be divided into groups of one size."""
        check_groups(self.num_samples, self.num_groups)

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        encoder = weights_within_groups(log_weights, self.num_groups) / self.num_groups
        return Coefficients(bounds.iwae(log_weights), normalized_weights(log_weights), encoder)


class PIWAEDReG(PIWAE):
    """PIWAE(M, K) whose encoder follows MIWAE(M, K) by DReG: the squares of the weights normalized within groups.

    Rainforth et al. (2018), section 5; Tucker et al. (2019). Unbiased as `PIWAE` is.
    """

    derivative: ClassVar[EncoderDerivative] = "path"

    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        encoder = jnp.square(weights_within_groups(log_weights, self.num_groups)) / self.num_groups
        return Coefficients(bounds.iwae(log_weights), normalized_weights(log_weights), encoder)
