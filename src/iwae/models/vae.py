"""The hierarchy: sample the posterior, log importance weights, ancestral sampling."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.errors import IWAEError
from iwae.models.architecture import Architecture
from iwae.models.distributions import Bernoulli, Normal, StandardNormal
from iwae.models.layers import BernoulliLayer, GaussianLayer, StochasticLayer

MEAN_CLIP = 0.001


class HierarchicalVAE(eqx.Module):
    """A hierarchy x = h_0, h_1, ..., h_L of stochastic layers (Burda et al. 2015, equations 1 and 5).

    `encoder[i]` is q(h_{i+1} | h_i); `decoder[i]` is p(h_i | h_{i+1}), so `decoder[0]` gives the visible layer;
    `prior` is p(h_L): N(0, I), or independent Bernoullis with learned logits where the top layer is binary. The
    same model serves as VAE and as IWAE: they differ in the objective.
    """

    encoder: tuple[StochasticLayer, ...]
    decoder: tuple[StochasticLayer, ...]
    prior: StandardNormal | Bernoulli = StandardNormal()

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
        layers = {"gaussian": GaussianLayer, "bernoulli": BernoulliLayer}
        kinds = [BernoulliLayer, *(layers[kind] for kind in architecture.kinds)]
        encoder, decoder = [], []
        for i, hidden in enumerate(architecture.hidden):
            encoder_key, decoder_key = jax.random.split(jax.random.fold_in(key, i))
            encoder.append(kinds[i + 1].create(sizes[i], hidden, sizes[i + 1], encoder_key))
            decoder.append(kinds[i].create(sizes[i + 1], hidden[::-1], sizes[i], decoder_key))
        prior = StandardNormal() if kinds[-1] is GaussianLayer else Bernoulli(jnp.zeros(sizes[-1]))
        model = cls(tuple(encoder), tuple(decoder), prior)
        if visible_mean is None:
            return model
        mean = jnp.clip(jnp.asarray(visible_mean, jnp.float32), MEAN_CLIP, 1.0 - MEAN_CLIP)
        return eqx.tree_at(lambda m: m.decoder[0].logits.bias, model, jnp.log(mean) - jnp.log1p(-mean))

    @property
    def latent(self) -> tuple[int, ...]:
        """Units of each stochastic layer, h_1 first."""
        return tuple(layer.units for layer in self.encoder)

    @property
    def visible(self) -> int:
        """Number of visible units."""
        return self.decoder[0].units

    def draw_noise(self, key: Key[Array, ""], num_samples: int, batch: int) -> tuple[Float[Array, "k batch _"], ...]:
        """Standard normal noise `[k, batch, units]` for every stochastic layer, h_1 first."""
        keys = jax.random.split(key, len(self.encoder))
        shapes = [(num_samples, batch, units) for units in self.latent]
        return tuple(jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True))

    def sample_posterior(
        self, x: Float[Array, "batch visible"], noise: tuple[Float[Array, "k batch _"], ...]
    ) -> tuple[tuple[Normal | Bernoulli, ...], tuple[Float[Array, "k batch _"], ...]]:
        """Samples h_l ~ q(h_l | h_{l-1}), reparameterized where the layer is Gaussian, and the distributions that
        they came from.

        The first distribution has shape `[batch, units]`: q(h_1 | x) is evaluated once per example, not once
        per sample.

        Raises IWAEError for an `x` of another shape: one example alone would be taken for a batch of numbers.
        """
        if x.ndim != 2 or x.shape[1] != self.visible:
            raise IWAEError(f"x must have shape [batch, {self.visible}], got {list(x.shape)}")
        distributions, samples = [], []
        below = x
        for layer, layer_noise in zip(self.encoder, noise, strict=True):
            posterior = layer(below)
            below = posterior.sample(layer_noise)
            distributions.append(posterior)
            samples.append(below)
        return tuple(distributions), tuple(samples)

    def log_posterior(
        self, x: Float[Array, "batch visible"], latents: tuple[Float[Array, "*k batch _"], ...]
    ) -> Float[Array, "*k batch"]:
        """log q(h_1, ..., h_L | x) in nats of given latents."""
        below = (x, *latents[:-1])
        return sum(layer.log_prob(h, b) for layer, b, h in zip(self.encoder, below, latents, strict=True))  # pyright: ignore[reportReturnType]

    def log_joint(
        self, x: Float[Array, "batch visible"], latents: tuple[Float[Array, "*k batch _"], ...]
    ) -> Float[Array, "*k batch"]:
        """log p(x, h_1, ..., h_L) in nats of given latents."""
        total = self.prior.log_prob(latents[-1])
        for layer, value, above in zip(self.decoder, (x, *latents[:-1]), latents, strict=True):
            total = total + layer.log_prob(value, above)
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
        return self._descend(top, key)[1].mean

    def sample(self, key: Key[Array, ""], num: int) -> Float[Array, "num visible"]:
        """`num` draws from the model: means of the visible layer under ancestral sampling from the prior."""
        prior_key, path_key = jax.random.split(key)
        return self.decode(self._sample_prior(prior_key, num), path_key)

    def sample_joint(
        self, key: Key[Array, ""], num: int
    ) -> tuple[Float[Array, "num visible"], tuple[Float[Array, "num _"], ...]]:
        """`num` draws (x, (h_1, ..., h_L)) from the joint p(x, h): x is drawn too, not its mean."""
        prior_key, path_key, visible_key = jax.random.split(key, 3)
        latents, visible = self._descend(self._sample_prior(prior_key, num), path_key)
        return visible.sample(jax.random.normal(visible_key, visible.mean.shape)), latents

    def _sample_prior(self, key: Key[Array, ""], num: int) -> Float[Array, "num _"]:
        return self.prior.sample(jax.random.normal(key, (num, self.latent[-1])))

    def _descend(
        self, top: Float[Array, "n _"], key: Key[Array, ""]
    ) -> tuple[tuple[Float[Array, "n _"], ...], Normal | Bernoulli]:
        """The latents, h_1 first, of ancestral sampling from `top`, and the visible layer's distribution."""
        latents = [top]
        for i in reversed(range(1, len(self.decoder))):
            conditional = self.decoder[i](latents[0])
            noise = jax.random.normal(jax.random.fold_in(key, i), conditional.mean.shape)
            latents.insert(0, conditional.sample(noise))
        return tuple(latents), self.decoder[0](latents[0])
