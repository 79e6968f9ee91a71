"""One forward and one backward pass, each sample's part of it weighted: what every gradient estimator is made of.

With log w_i = log p(x, h_i) - log q(h_i | x), each estimator of this library goes up
  decoder:  sum_i a_i grad_theta log p(x, h_i)
  encoder:  sum_i b_i D_phi
where a_i and b_i are functions of the log weights, and D_phi is one of three derivatives of sample i:
  total  the derivative of log w_i through everything that depends on phi;
  path   through the samples h_i(phi) alone, phi held fixed inside log q (Roeder et al. 2017; Tucker et al. 2019);
  score  grad_phi log q(h_i | x) with the samples held fixed.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from iwae.errors import IWAEError
from iwae.models.vae import HierarchicalVAE

EncoderDerivative = Literal["total", "path", "score"]

# A decoder's coefficient is never allowed to be zero: the encoder's cotangents are rescaled from it. Beside
# coefficients that sum to about one, this is nothing.
SMALLEST_COEFFICIENT = 1e-30


class Coefficients(NamedTuple):
    """What an estimator makes of log weights `[k, batch]`: the `bound` `[batch]` in nats, and each sample's weights
    `decoder` (a_i) and `encoder` (b_i), `[k, batch]`.
    """

    bound: Float[Array, " batch"]
    decoder: Float[Array, "k batch"]
    encoder: Float[Array, "k batch"]


Latents = tuple[Float[Array, "k batch _"], ...]


def weighted_gradient(
    model: HierarchicalVAE,
    x: Float[Array, "batch visible"],
    noise: Latents,
    coefficients: Callable[[Float[Array, "k batch"]], Coefficients],
    derivative: EncoderDerivative,
) -> tuple[Float[Array, " batch"], HierarchicalVAE]:
    """The bound `[batch]` in nats, and the gradient of the loss, which is minus the bound's mean over the batch, in the
    shape of the model (None in the place of what is no array of real numbers).

    `noise` is standard normal, `[k, batch, units]` for each stochastic layer.

    For the path derivative the PARAMETERS of q are held fixed, not what they compute: q(h_2 | h_1) still depends
    on the sampled h_1, and the derivative through it stays (Bauer & Mnih 2021, section 4).

    Raises IWAEError for binary latents and another derivative than the score, for a derivative that there is not,
    and for coefficients of other shapes.
    """
    if derivative not in _ENCODER_SIDES:
        raise IWAEError(f"an estimator's derivative is one of {', '.join(_ENCODER_SIDES)}, got {derivative!r}")
    if derivative != "score" and not model.is_reparameterized:
        raise IWAEError(
            f"binary latents have no {derivative} derivative through their samples: use VIMCO, OVIS,"
            " ReweightedWakeSleep or ScoreFunction"
        )
    latents, log_q, pull_encoder = _ENCODER_SIDES[derivative](model, x, noise)
    log_p, pull_log_p = eqx.filter_vjp(lambda m, h: m.log_joint(x, h), model, latents)
    bound, decoder, encoder = _checked(coefficients(log_p - log_q), log_p.shape)
    # Of the mean over the batch, and downhill: on the coefficients this costs nothing, on the gradient a pass over it.
    share = -1.0 / x.shape[0]
    if encoder is decoder:
        encoder = decoder = share * decoder
        decoder_gradient, on_latents = pull_log_p(decoder)
    else:
        # One backward pass through the decoder serves both groups of parameters: sample i's cotangent there is
        # proportional to a_i, and is rescaled to b_i before it goes on to the encoder.
        decoder, encoder = share * decoder, share * encoder
        decoder = jnp.where(jnp.abs(decoder) < SMALLEST_COEFFICIENT, SMALLEST_COEFFICIENT, decoder)
        decoder_gradient, on_latents = pull_log_p(decoder)
        on_latents = jax.tree.map(lambda c: c * (encoder / decoder)[..., None], on_latents)
    return bound, jax.tree.map(jnp.add, decoder_gradient, pull_encoder(encoder, on_latents))


def _checked(coefficients: Coefficients, shape: tuple[int, ...]) -> Coefficients:
    expected = {"bound": shape[1:], "decoder": shape, "encoder": shape}
    for name, should in expected.items():
        found = getattr(coefficients, name, None)
        if found is None or jnp.shape(found) != should:
            what = type(found).__name__ if found is None else f"of shape {list(jnp.shape(found))}"
            raise IWAEError(f"an estimator's coefficients need a {name} of shape {list(should)}, got {what}")
    return coefficients


# (b_i, the cotangents of log p on the samples) -> the encoder's gradient, in the shape of the model.
PullEncoder = Callable[[Float[Array, "k batch"], Latents], HierarchicalVAE]
EncoderSide = tuple[Latents, Float[Array, "k batch"], PullEncoder]


def _total(model: HierarchicalVAE, x: Float[Array, "batch visible"], noise: Latents) -> EncoderSide:
    def sampled(model: HierarchicalVAE) -> tuple[Latents, Any]:
        posteriors, latents = model.sample_posterior(x, noise)
        return latents, sum(q.log_prob(h) for q, h in zip(posteriors, latents, strict=True))

    (latents, log_q), pull = eqx.filter_vjp(sampled, model)
    return latents, log_q, lambda encoder, on_latents: pull((on_latents, -encoder))[0]


def _path(model: HierarchicalVAE, x: Float[Array, "batch visible"], noise: Latents) -> EncoderSide:
    latents, pull_samples = eqx.filter_vjp(lambda m: m.sample_posterior(x, noise)[1], model)
    log_q, pull_log_q = jax.vjp(lambda h: model.log_posterior(x, h), latents)

    def pull(encoder: Float[Array, "k batch"], on_latents: Latents) -> HierarchicalVAE:
        return pull_samples(jax.tree.map(jnp.add, on_latents, pull_log_q(-encoder)[0]))[0]

    return latents, log_q, pull


def _score(model: HierarchicalVAE, x: Float[Array, "batch visible"], noise: Latents) -> EncoderSide:
    _, latents = model.sample_posterior(x, noise)
    log_q, pull_log_q = eqx.filter_vjp(lambda m: m.log_posterior(x, latents), model)
    return latents, log_q, lambda encoder, _: pull_log_q(encoder)[0]


_ENCODER_SIDES: dict[EncoderDerivative, Callable[..., EncoderSide]] = {"total": _total, "path": _path, "score": _score}
