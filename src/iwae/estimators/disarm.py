"""DisARM: the score function at antithetic pairs of binary latents."""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from iwae.errors import IWAEError
from iwae.estimators.bound import ROWS_AT_ONCE, OfBound, slopes
from iwae.estimators.gradients import Coefficients, EncoderDerivative, Latents
from iwae.models.distributions import Bernoulli
from iwae.models.layers import BernoulliLayer
from iwae.models.vae import HierarchicalVAE


class DisARM(OfBound):
    """DisARM, for one layer of binary latents: k antithetic pairs (h_i, h~_i), made of uniform u and of 1 - u.

    Dong, Mnih & Tucker (2020): by the logits l of q, the gradient of E[f(h)] is estimated without bias by
    1/2 (f(h) - f(h~)) (h - h~) sigmoid(|l|). Of a bound of k samples sample i's f is the bound as a function of
    h_i alone, the others held fixed, as in their local DisARM for L_k, less its derivative c_i by log w_i: that is the
    part of log q, whose score it multiplies. The estimate is the mean of those at the h_i and at the h~_i, so that 2k
    samples are drawn for a bound of k. Unbiased. Raises IWAEError for other latents.
    """

    derivative: ClassVar[EncoderDerivative] = "score"

    def noise(self, model: HierarchicalVAE, key: Key[Array, ""], batch: int) -> Latents:
        """Noise `[2k, batch, units]`: that of the h_i, and its negative."""
        if model.is_reparameterized or len(model.latent) != 1:
            raise IWAEError(
                "DisARM needs one stochastic layer of binary latents: use VIMCO, OVIS, ReweightedWakeSleep or"
                " ScoreFunction for others"
            )
        return tuple(jnp.concatenate([n, -n]) for n in model.draw_noise(key, self.num_samples, batch))

    def coefficients(self, log_weights: Float[Array, "two_k batch"]) -> Coefficients:
        first, second = jnp.split(log_weights, 2)
        value, slope, signal = self._signals(first, second)
        other_value, other_slope, other_signal = self._signals(second, first)
        signal = 0.25 * (signal - other_signal)
        return Coefficients(
            0.5 * (value + other_value),
            0.5 * jnp.concatenate([slope, other_slope]),
            jnp.concatenate([signal, -signal]),
        )

    def _signals(
        self, own: Float[Array, "k batch"], partners: Float[Array, "k batch"]
    ) -> tuple[Float[Array, " batch"], Float[Array, "k batch"], Float[Array, "k batch"]]:
        """The bound, its slopes, and by how much bound - c_i falls where sample i is replaced by its partner."""
        value, slope = slopes(self.grouped, own)

        def replaced(i: Int[Array, ""]) -> Float[Array, " batch"]:
            other, others = slopes(self.grouped, own.at[i].set(partners[i]))
            return other - others[i]

        return value, slope, value - slope - jax.lax.map(replaced, jnp.arange(len(own)), batch_size=ROWS_AT_ONCE)

    def gradient(
        self,
        model: HierarchicalVAE,
        x: Float[Array, "batch visible"],
        noise: Latents,
        coefficients: Callable[[Float[Array, "two_k batch"]], Coefficients],
    ) -> tuple[Float[Array, " batch"], HierarchicalVAE]:
        """That of the score function, but for the factors sigmoid(|l|): of a pair, (h - sigmoid(l)) - (h~ -
        sigmoid(l)) is h - h~.
        """
        damped = replace(model, encoder=tuple(_Damped(layer) for layer in model.encoder))  # pyright: ignore[reportArgumentType]
        bound, found = super().gradient(damped, x, noise, coefficients)
        return bound, replace(found, encoder=tuple(layer.layer for layer in found.encoder))  # pyright: ignore[reportAttributeAccessIssue]


class _Damped(eqx.Module):
    """A layer whose logits' derivatives are multiplied by sigmoid(|logit|)."""

    reparameterized: ClassVar[bool] = False
    layer: BernoulliLayer

    @property
    def units(self) -> int:
        return self.layer.units

    def __call__(self, given: Float[Array, "*rows n_in"]) -> Bernoulli:
        logits = self.layer(given).logits
        fixed = jax.lax.stop_gradient(logits)
        return Bernoulli(fixed + jax.nn.sigmoid(jnp.abs(fixed)) * (logits - fixed))

    def log_prob(
        self, value: Float[Array, "*more n_out"], given: Float[Array, "*rows n_in"]
    ) -> Float[Array, "*result"]:
        return self(given).log_prob(value)
