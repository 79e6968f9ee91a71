"""Estimates whose matrix products, forward and backward, are in bfloat16."""

import jax
from jaxtyping import Array, Float, Key

from iwae.estimators.base import Estimate, Estimator
from iwae.models.layers import with_precision
from iwae.models.vae import HierarchicalVAE


class InBFloat16(Estimator):
    """Another estimator's estimates, from operands of the linear layers' products that are rounded to bfloat16.

    Sums are float32's, and so is all else: weights, log weights and what is made of them, gradients. The draws are
    those of the other estimator.
    """

    estimator: Estimator

    def __call__(self, model: HierarchicalVAE, x: Float[Array, "batch visible"], key: Key[Array, ""]) -> Estimate:
        value, gradient = self.estimator(with_precision(model, "bfloat16"), x, key)
        return Estimate(value, jax.tree.unflatten(jax.tree.structure(model), jax.tree.leaves(gradient)))
