"""GDReG: doubly reparameterized gradients for the decoder's upper layers too."""

from collections.abc import Callable
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from iwae.errors import IWAEError
from iwae.estimators.bound import DoublyReparameterized
from iwae.estimators.gradients import Coefficients, Latents
from iwae.models.vae import HierarchicalVAE


class GeneralizedDoublyReparameterized(DoublyReparameterized):
    """GDReG: DReG, and the gradient of p(h_l | h_{l+1}) through the samples too, in hierarchies of two layers or more.

    Bauer & Mnih (2021): h_l ~ q is written as a draw of p(h_l | h_{l+1}) whose noise is (h_l - mean) /
    sigma, and the score of p is reparameterized by it. With a_i and b_i as in DReG (w~_i and w~_i^2 for L_k), the
    derivative of that draw by the decoder's parameters is multiplied by

        a_i d/dh_l log p(h_{l-1} | h_l) - b_i d/dh_l log w_i,

    where all other layers are held fixed. The visible layer's gradient and the prior's are as in DReG; with one
    stochastic layer all are. Unbiased where DReG is. It has less noise where log p(h_{l-1} | h_l) is flatter in h_l
    than log p(h_l | h_{l+1}), and more where it is steeper.

    Raises IWAEError where an upper layer is not a diagonal Gaussian.
    """

    def gradient(
        self,
        model: HierarchicalVAE,
        x: Float[Array, "batch visible"],
        noise: Latents,
        coefficients: Callable[[Float[Array, "k batch"]], Coefficients],
    ) -> tuple[Float[Array, " batch"], HierarchicalVAE]:
        """That of DReG, with the decoder's upper layers replaced."""
        bound, found = super().gradient(model, x, noise, coefficients)
        if len(model.latent) == 1:
            return bound, found
        _, latents = model.sample_posterior(x, noise)
        log_p, pull_p = jax.vjp(lambda h: model.log_joint(x, h), latents)
        log_q, pull_q = jax.vjp(lambda h: model.log_posterior(x, h), latents)
        _, decoder, encoder = coefficients(log_p - log_q)
        of_p, of_q = (pull(jnp.ones_like(log_p))[0] for pull in (pull_p, pull_q))
        upper = []
        for layer, h, above, by_p, by_q in zip(model.decoder[1:], latents, latents[1:], of_p, of_q, strict=False):
            conditional = layer(above)
            noise_of = getattr(conditional, "noise_of", None)
            if noise_of is None:
                raise IWAEError("GDReG needs diagonal Gaussians in the decoder's upper layers: use DReG for others")
            own = jax.grad(lambda value, p=conditional: jnp.sum(p.log_prob(value)))(h)
            pushed = decoder[..., None] * (by_p - own) - encoder[..., None] * (by_p - by_q)
            draw = noise_of(h)
            _, pull = eqx.filter_vjp(lambda m, a=above, n=draw: m(a).sample(n), layer)
            upper.append(pull(-pushed / x.shape[0])[0])
        return bound, replace(found, decoder=(found.decoder[0], *upper))
