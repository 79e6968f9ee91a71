"""The hierarchy: sample the posterior, log importance weights, ancestral sampling."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.architecture import Architecture
from iwae.distributions import Normal, standard_normal_log_prob
from iwae.networks import BernoulliLayer, GaussianLayer

MEAN_CLIP = 0.001


class HierarchicalVAE(eqx.Module):
    """A hierarchy x = h_0, h_1, ..., h_L of stochastic layers (Burda et al. 2015, equations 1 and 5).

    `encoder[i]` is q(h_{i+1} | h_i); `decoder[i]` is p(h_i | h_{i+1}), so `decoder[0]` gives the visible layer;
    the prior p(h_L) is N(0, I). The same model serves as VAE and as IWAE: they differ in the objective.
    """

    encoder: tuple[GaussianLayer, ...]
    decoder: tuple[BernoulliLayer | GaussianLayer, ...]

    @classmethod
    def create(
        cls,
        architecture: Architecture,
        key: Key[Array, ""],
        visible_mean: Float[Array, " visible"] | None = None,
    ) -> "HierarchicalVAE":
        """Random weights. The visible layer's bias is the logit of `visible_mean`, the training mean clipped to
        [0.001, 0.999]; without it the bias is zero.
        """
        sizes = (architecture.visible, *architecture.latent)
        encoder, decoder = [], []
        for i, hidden in enumerate(architecture.hidden):
            encoder_key, decoder_key = jax.random.split(jax.random.fold_in(key, i))
            encoder.append(GaussianLayer.create(sizes[i], hidden, sizes[i + 1], encoder_key))
            kind = BernoulliLayer if i == 0 else GaussianLayer
            decoder.append(kind.create(sizes[i + 1], hidden[::-1], sizes[i], decoder_key))
        model = cls(tuple(encoder), tuple(decoder))
        if visible_mean is None:
            return model
        mean = jnp.clip(jnp.asarray(visible_mean, jnp.float32), MEAN_CLIP, 1.0 - MEAN_CLIP)
        return eqx.tree_at(lambda m: m.decoder[0].logits.bias, model, jnp.log(mean) - jnp.log1p(-mean))

    @property
    def latent(self) -> tuple[int, ...]:
        """Units of each stochastic layer, h_1 first."""
        return tuple(layer.mean.bias.shape[-1] for layer in self.encoder)

    @property
    def visible(self) -> int:
        """Number of visible units."""
        return self.decoder[0].logits.bias.shape[-1]  # pyright: ignore[reportAttributeAccessIssue]

    def draw_noise(self, key: Key[Array, ""], num_samples: int, batch: int) -> tuple[Float[Array, "k batch _"], ...]:
        """Standard normal noise `[k, batch, units]` for every stochastic layer, h_1 first."""
        keys = jax.random.split(key, len(self.encoder))
        shapes = [(num_samples, batch, units) for units in self.latent]
        return tuple(jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True))

    def sample_posterior(
        self, x: Float[Array, "batch visible"], noise: tuple[Float[Array, "k batch _"], ...]
    ) -> tuple[tuple[Normal, ...], tuple[Float[Array, "k batch _"], ...]]:
        """Reparameterized samples h_l ~ q(h_l | h_{l-1}) and the distributions that they came from.

        The first distribution has shape `[batch, units]`: q(h_1 | x) is evaluated once per example, not once
        per sample.
        """
        distributions, samples = [], []
        below = x
        for layer, layer_noise in zip(self.encoder, noise, strict=True):
            posterior = layer(below)
            below = posterior.sample(layer_noise)
            distributions.append(posterior)
            samples.append(below)
        return tuple(distributions), tuple(samples)

    def log_joint(
        self, x: Float[Array, "batch visible"], latents: tuple[Float[Array, "k batch _"], ...]
    ) -> Float[Array, "k batch"]:
        """log p(x, h_1, ..., h_L) in nats for every sample."""
        total = standard_normal_log_prob(latents[-1])
        for layer, value, above in zip(self.decoder, (x, *latents[:-1]), latents, strict=True):
            total = total + layer(above).log_prob(value)
        return total

    def log_weights_at(
        self, x: Float[Array, "batch visible"], noise: tuple[Float[Array, "k batch _"], ...]
    ) -> Float[Array, "k batch"]:
        """log w = log p(x, h) - log q(h | x) in nats, at the samples that `noise` gives."""
        posteriors, latents = self.sample_posterior(x, noise)
        log_q = sum(q.log_prob(h) for q, h in zip(posteriors, latents, strict=True))
        return self.log_joint(x, latents) - log_q

    def log_weights(
        self, x: Float[Array, "batch visible"], key: Key[Array, ""], num_samples: int
    ) -> Float[Array, "k batch"]:
        """log w_i of `num_samples` fresh posterior samples per example, in nats (Burda et al. 2015, equation 8)."""
        return self.log_weights_at(x, self.draw_noise(key, num_samples, x.shape[0]))

    def decode(self, top: Float[Array, "n _"], key: Key[Array, ""]) -> Float[Array, "n visible"]:
        """Means of the visible layer after ancestral sampling downwards from values of the top layer h_L."""
        value = top
        for i in reversed(range(1, len(self.decoder))):
            conditional = self.decoder[i](value)
            assert isinstance(conditional, Normal)
            value = conditional.sample(jax.random.normal(jax.random.fold_in(key, i), conditional.mean.shape))
        return self.decoder[0](value).mean

    def sample(self, key: Key[Array, ""], num: int) -> Float[Array, "num visible"]:
        """`num` draws from the model: means of the visible layer under ancestral sampling from the prior."""
        prior_key, path_key = jax.random.split(key)
        return self.decode(jax.random.normal(prior_key, (num, self.latent[-1])), path_key)
