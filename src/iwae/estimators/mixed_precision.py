"""Estimates whose matrix products, forward and backward, are in bfloat16."""

from jaxtyping import Array, Float, Int, Key

from iwae.estimators.base import Estimate, Estimator
from iwae.models.networks.base import with_precision
from iwae.models.vae import HierarchicalVAE


class InBFloat16(Estimator):
    """Another estimator's estimates, from operands of the linear layers' products that are rounded to bfloat16.

    Sums are float32's, and so is all else: weights, log weights and what is made of them, gradients. The draws are
    those of the other estimator.
    """

    estimator: Estimator

    def __call__(self, model: HierarchicalVAE, x: Float[Array, "batch visible"], key: Key[Array, ""]) -> Estimate:
        value, gradient = self.estimator(with_precision(model, "bfloat16"), x, key)
        # Precision is part of the structure, and the gradient's is to be the model's.
        return Estimate(value, with_precision(gradient, "float32"))

    def at(self, step: Int[Array, ""]) -> "InBFloat16":
        return InBFloat16(self.estimator.at(step))
