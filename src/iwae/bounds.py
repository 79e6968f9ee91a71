"""Lower bounds on log p(x) as pure functions of log weights: `[k, batch]` in, `[batch]` nats out."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def elbo(log_weights: Float[Array, "k *batch"]) -> Float[Array, "*batch"]:
    """The variational lower bound averaged over k samples: (1/k) sum_i log w_i.

    Burda et al. (2015), equation 3; Kingma & Welling (2013).
    """
    if log_weights.shape[0] == 1:
        return log_weights[0]
    return jnp.mean(log_weights, axis=0)


def iwae(log_weights: Float[Array, "k *batch"]) -> Float[Array, "*batch"]:
    """The importance weighted bound L_k: log (1/k) sum_i w_i, by a stable log-sum-exp.

    Burda et al. (2015), equation 8. L_1 is the variational lower bound.
    """
    if log_weights.shape[0] == 1:
        return log_weights[0]
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])
