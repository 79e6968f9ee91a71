"""Objectives that see the terms of a log weight one by one: KL warm-up and beta-VAE, free bits."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from iwae.errors import IWAEError, check_count
from iwae.estimators.base import Estimate, Estimator, traced
from iwae.models.vae import HierarchicalVAE, LogTerms


class OfTerms(Estimator):
    """An objective of log p(x | h), log p(h) and log q(h | x), differentiated through reparameterized samples.

    Subclass it and give `objective`; what depends on the training step is set by `at`. Needs Gaussian latents.
    """

    num_samples: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        """Raises IWAEError for a number of samples below one."""
        check_count("num_samples", self.num_samples)

    def objective(self, terms: LogTerms) -> Float[Array, " batch"]:
        """What is maximized, in nats per example, from terms `[k, batch]`."""
        raise NotImplementedError

    def __call__(self, model: HierarchicalVAE, x: Float[Array, "batch visible"], key: Key[Array, ""]) -> Estimate:
        if not model.is_reparameterized:
            raise IWAEError(f"{type(self).__name__} differentiates through samples, which binary latents do not allow")
        noise = model.draw_noise(key, self.num_samples, x.shape[0])
        value, gradient = eqx.filter_value_and_grad(lambda m: -jnp.mean(self.objective(m.log_terms_at(x, noise))))(
            model
        )
        return Estimate(value, gradient)


def _steps(count: int) -> Float[Array, ""]:
    check_count("warm_up", count, 0)
    return traced(count)


class BetaVAE(OfTerms):
    """log p(x | h) + beta (log p(h) - log q(h | x)), averaged over k samples.

    Higgins et al. (2017), "beta-VAE". With `warm_up` steps, beta grows in a straight line from 0 in the first step to
    its value (Bowman et al. 2016; Sonderby et al. 2016): with beta = 1 that is the ELBO with KL warm-up.
    """

    beta: Float[Array, ""] = eqx.field(converter=traced, default=1.0)  # pyright: ignore[reportAssignmentType]
    warm_up: Float[Array, ""] = eqx.field(converter=_steps, default=0)  # pyright: ignore[reportAssignmentType]

    def objective(self, terms: LogTerms) -> Float[Array, " batch"]:
        return jnp.mean(terms.visible + self.beta * (terms.prior - terms.posterior), axis=0)

    def at(self, step: Int[Array, ""]) -> "BetaVAE":
        share = jnp.where(step < self.warm_up, step / jnp.maximum(self.warm_up, 1.0), 1.0)
        return eqx.tree_at(lambda estimator: estimator.beta, self, self.beta * share)


class FreeBits(OfTerms):
    """log p(x | h) less the KL divergence, its mean over the batch, but at least `free_bits` nats of it, averaged over
    k samples: below that, the divergence costs nothing, and has no gradient.

    Kingma et al. (2016), "Improved variational inference with inverse autoregressive flow", equation 15, with all
    latents as one group. The sampled log q(h | x) - log p(h) stands for the divergence.
    """

    free_bits: Float[Array, ""] = eqx.field(converter=traced)

    def objective(self, terms: LogTerms) -> Float[Array, " batch"]:
        divergence = jnp.mean(terms.posterior - terms.prior)
        return jnp.mean(terms.visible, axis=0) - jnp.maximum(divergence, self.free_bits)
