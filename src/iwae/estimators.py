"""How a bound is differentiated: (model, x, key) -> its value and a gradient estimate."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae import bounds
from iwae.errors import IWAEError
from iwae.model import HierarchicalVAE

Bound = Callable[[Float[Array, "k batch"]], Float[Array, " batch"]]


class Estimate(NamedTuple):
    """`value` is the bound's mean over the batch, in nats; `gradient` estimates that of its SUM over the batch,
    as the paper's code used it, in the shape of the model.
    """

    value: Float[Array, ""]
    gradient: HierarchicalVAE


class Estimator(eqx.Module):
    """Turns a model, a batch and a key into an `Estimate`. Subclass it to add one; `x` is `[batch, visible]`."""

    @abc.abstractmethod
    def __call__(self, model: HierarchicalVAE, x: Float[Array, "batch visible"], key: Key[Array, ""]) -> Estimate:
        """The bound's value and a gradient estimate, from draws that depend on `key` alone."""


class Reparameterized(Estimator):
    """The gradient of a bound through reparameterized samples (Burda et al. 2015, equation 13).

    For the IWAE bound automatic differentiation gives sum_i w~_i grad log w_i with normalized weights w~_i; for
    the ELBO the plain average of grad log w_i.
    """

    bound: Bound = eqx.field(static=True)
    num_samples: int = eqx.field(static=True)

    def __call__(self, model: HierarchicalVAE, x: Float[Array, "batch visible"], key: Key[Array, ""]) -> Estimate:
        def summed(model: HierarchicalVAE) -> Float[Array, ""]:
            return jnp.sum(self.bound(model.log_weights(x, key, self.num_samples)))

        total, gradient = eqx.filter_value_and_grad(summed)(model)
        return Estimate(total / x.shape[0], gradient)


BOUNDS: dict[str, Bound] = {"vae": bounds.elbo, "iwae": bounds.iwae}


def make_estimator(objective: str, num_samples: int) -> Estimator:
    """The estimator of an objective by name: `vae` (k-sample ELBO) or `iwae` (L_k), with k = `num_samples`.

    Raises IWAEError for an unknown objective or a k that is not a positive integer.
    """
    if objective not in BOUNDS:
        raise IWAEError(f"unknown objective {objective!r}: expected one of {', '.join(BOUNDS)}")
    if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
        raise IWAEError(f"k must be a positive integer, got {num_samples!r}")
    return Reparameterized(BOUNDS[objective], num_samples)
