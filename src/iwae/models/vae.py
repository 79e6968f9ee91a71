"""The hierarchy: sample the posterior, log importance weights, ancestral sampling."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from iwae.data.disk_rows import Rows
from iwae.errors import IWAEError
from iwae.models.architecture import Architecture, Mask
from iwae.models.description import description
from iwae.models.distributions import Bernoulli, Distribution, Prior, StandardNormal
from iwae.models.layers import LATENT_LAYERS, BernoulliLayer, ConditionalLayer, GaussianLayer
from iwae.models.likelihoods.base import Likelihood, VisibleLayer
from iwae.models.likelihoods.bernoulli import BernoulliLikelihood
from iwae.models.missing import SelfMasking
from iwae.models.networks import makers_of, name_of
from iwae.models.networks.base import Network, has_dropout, with_dropout
from iwae.models.posteriors import POSTERIORS
from iwae.models.priors import PRIORS
from iwae.models.registry import Kind, class_at, name_in


class LogTerms(NamedTuple):
    """What a log weight consists of, `[k, batch]` each, in nats: `visible` log p(x | h_1), `prior` log p(h_1, ..., h_L)
    and `posterior` log q(h_1, ..., h_L | x). log w = visible + prior - posterior.
    """

    visible: Float[Array, "k batch"]
    prior: Float[Array, "k batch"]
    posterior: Float[Array, "k batch"]


class HierarchicalVAE(eqx.Module):
    """A hierarchy x = h_0, h_1, ..., h_L of stochastic layers (Burda et al. 2015, equations 1 and 5).

    `encoder[i]` is q(h_{i+1} | h_i); `decoder[i]` is p(h_i | h_{i+1}), so `decoder[0]` is the visible layer, whose
    likelihood says what kind of data it is for; `prior` is p(h_L): N(0, I), another of `iwae.models.priors`, or
    independent Bernoullis with learned logits where the top layer is binary. The same model serves as VAE and as IWAE:
    they differ in the objective. `mask` is as in `Architecture`; `missing` is how values go missing, where that depends
    on them.
    """

    encoder: tuple[ConditionalLayer, ...]
    decoder: tuple[ConditionalLayer, ...]
    prior: Prior = StandardNormal()
    missing: SelfMasking | None = None
    mask: Mask = eqx.field(static=True, default="zeros")

    @classmethod
    def create(
        cls,
        architecture: Architecture,
        key: Key[Array, ""],
        likelihood: Likelihood | None = None,
        bias: np.ndarray | None = None,
    ) -> "HierarchicalVAE":
        """The architecture's networks with random weights, for visible data of a `likelihood` (by default Bernoulli).
        `bias` is that of the visible layer's outputs, as `Likelihood.initial_bias` gives it; by default zero.

        Raises IWAEError for an architecture without a number of visible units, and for a likelihood that it does not
        go with.
        """
        likelihood = BernoulliLikelihood() if likelihood is None else likelihood
        if architecture.visible is None:
            raise IWAEError("`architecture` has no number of visible units: give one, or use create_model(data, ...)")
        sizes = (architecture.visible, *architecture.latent)
        kinds = [LATENT_LAYERS[kind] for kind in architecture.kinds]
        up, down = makers_of(architecture)
        family, how = _part(POSTERIORS[architecture.posterior], architecture)
        encoder: list[ConditionalLayer] = []
        decoder: list[ConditionalLayer] = []
        for i, hidden in enumerate(architecture.hidden):
            encoder_key, decoder_key = jax.random.split(jax.random.fold_in(key, i))
            inputs = _count_inputs(likelihood, sizes[0], architecture.mask) if i == 0 else sizes[i]
            upwards = (inputs, hidden, sizes[i + 1], encoder_key, up[i])
            encoder.append(family.create(*upwards, **how) if kinds[i] is GaussianLayer else kinds[i].create(*upwards))
            downwards = (sizes[i + 1], hidden[::-1], sizes[i], decoder_key)
            if i == 0:
                decoder.append(VisibleLayer.create(*downwards, likelihood, down[0]).with_bias(bias))
            else:
                decoder.append(kinds[i - 1].create(*downwards, down[i]))
        prior: Prior = Bernoulli(jnp.zeros(sizes[-1]))
        if kinds[-1] is GaussianLayer:
            family, how = _part(PRIORS[architecture.prior], architecture)
            inputs = _count_inputs(likelihood, sizes[0], architecture.mask) if len(kinds) == 1 else sizes[-2]
            prior = family.create(sizes[-1], inputs, jax.random.fold_in(key, len(kinds)), **how)
        if architecture.missing == "self-masking" and not likelihood.is_ordered:
            raise IWAEError("`missing` self-masking needs values with an order, but the likelihood has categories")
        missing = SelfMasking.create(sizes[0]) if architecture.missing == "self-masking" else None
        return cls(tuple(encoder), tuple(decoder), prior, missing, architecture.mask)

    @classmethod
    def from_networks(
        cls,
        encoder: Sequence[Network],
        decoder: Sequence[Network],
        latent: Sequence[int],
        visible: int,
        key: Key[Array, ""],
        likelihood: Likelihood | None = None,
        bias: np.ndarray | None = None,
        mask: Mask = "zeros",
    ) -> "HierarchicalVAE":
        """Gaussian layers of `latent` units on networks of your own: `encoder[i]` maps h_i `[n_in]` to features, and
        `decoder[i]` maps h_{i+1} to features of h_i. The linear layers from features to distributions are made here.
        With `mask` "concatenate" the first network is given x and, after it, which values are there.

        Raises IWAEError for numbers of networks that differ from that of layers, and for a network that can't take
        its input.
        """
        if not len(encoder) == len(decoder) == len(latent) > 0:
            raise IWAEError(
                f"{len(latent)} stochastic layers need as many networks in `encoder` and in `decoder`, got"
                f" {len(encoder)} and {len(decoder)}"
            )
        likelihood = BernoulliLikelihood() if likelihood is None else likelihood
        sizes = (visible, *latent)
        up: list[ConditionalLayer] = []
        down: list[ConditionalLayer] = []
        for i, (encode, decode) in enumerate(zip(encoder, decoder, strict=True)):
            encoder_key, decoder_key = jax.random.split(jax.random.fold_in(key, i))
            inputs = _count_inputs(likelihood, visible, mask) if i == 0 else sizes[i]
            up.append(GaussianLayer.on(encode, sizes[i + 1], inputs=inputs, key=encoder_key))
            how = {"inputs": sizes[i + 1], "key": decoder_key}
            if i == 0:
                down.append(VisibleLayer.on(decode, visible, likelihood=likelihood, **how).with_bias(bias))
            else:
                down.append(GaussianLayer.on(decode, sizes[i], **how))
        return cls(tuple(up), tuple(down), mask=mask)

    def __repr__(self) -> str:
        return description(self)

    @property
    def dtype(self) -> jnp.dtype:
        """The type of its numbers, float32 unless they were made otherwise: its noise has the same."""
        return jax.tree.leaves(eqx.filter(self, eqx.is_inexact_array))[0].dtype

    @property
    def latent(self) -> tuple[int, ...]:
        """Units of each stochastic layer, h_1 first."""
        return tuple(layer.units for layer in self.encoder)

    @property
    def visible(self) -> int:
        """Number of visible units."""
        return self.decoder[0].units

    @property
    def likelihood(self) -> Likelihood:
        """The kind of visible data that the model is for."""
        return getattr(self.decoder[0], "likelihood", None) or Likelihood()

    def with_likelihood(self, likelihood: Likelihood) -> "HierarchicalVAE":
        """The same weights, for rows that are stored in another way."""
        visible = replace(self.decoder[0], likelihood=likelihood)  # pyright: ignore[reportArgumentType]
        return replace(self, decoder=(visible, *self.decoder[1:]))

    @property
    def is_reparameterized(self) -> bool:
        """Whether every stochastic layer has derivatives through its samples."""
        return all(getattr(layer, "reparameterized", True) for layer in self.encoder)

    @property
    def network(self) -> str | None:
        """The name of the networks, in `iwae.models.networks`; None where they are custom ones, or of several kinds."""
        return name_of([getattr(layer, "network", None) for layer in (*self.encoder, *self.decoder)])

    @property
    def prior_name(self) -> str | None:
        """The name of the top layer's prior, in `iwae.models.priors`; None for a custom one."""
        return "standard" if isinstance(self.prior, Bernoulli) else name_in(PRIORS, self.prior)

    @property
    def posterior_name(self) -> str | None:
        """The name of the family of the encoder's Gaussian layers, in `iwae.models.posteriors`; None for a custom one,
        and for several.
        """
        names = {name_in(POSTERIORS, layer) for layer in self.encoder if not isinstance(layer, BernoulliLayer)}
        return (names or {"diagonal"}).pop() if len(names) <= 1 else None

    @property
    def top_prior(self) -> Prior:
        """p(h_L) as a distribution: `prior`, for the encoder that it may depend on."""
        return self.prior.given(self.encoder[-1])

    def with_prior_made(self) -> "HierarchicalVAE":
        """The same model with `top_prior` in the place of `prior`: before a loop, so that it is made once."""
        return replace(self, prior=self.top_prior)

    def in_training(self, key: Key[Array, ""]) -> "HierarchicalVAE":
        """The model with its dropout drawn from a step's `key`; itself where it has none. Without, it is measured."""
        # The first two are what the key is split into.
        return with_dropout(self, jax.random.fold_in(key, 2)) if has_dropout(self) else self

    def with_prior_of(self, rows: Rows, key: Key[Array, ""]) -> "HierarchicalVAE":
        """The model before training, whose prior starts from training rows `[n, visible]`, as they are stored, where
        it is one that does.
        """
        if not self.prior.num_codes:
            return self
        order = np.asarray(jax.random.permutation(key, len(rows)))
        chosen = jnp.asarray(rows[np.resize(order, self.prior.num_codes)])
        codes = self.encoder_input(self.prepare(chosen, jax.random.fold_in(key, 1)))
        for layer in self.encoder[:-1]:
            codes = layer(codes).mean
        return replace(self, prior=self.prior.starting_at(codes))

    def prepare(self, rows: Array, key: Key[Array, ""]) -> Float[Array, "batch visible"]:
        """Stored rows `[batch, visible]` as they are scored: binarized, standardized, or as they are."""
        return self.likelihood.prepare(rows, key)

    def draw_noise(self, key: Key[Array, ""], num_samples: int, batch: int) -> tuple[Float[Array, "k batch _"], ...]:
        """Standard normal noise `[k, batch, units]` for every stochastic layer, h_1 first."""
        keys = jax.random.split(key, len(self.encoder))
        shapes = [(num_samples, batch, units) for units in self.latent]
        return tuple(jax.random.normal(k, shape, self.dtype) for k, shape in zip(keys, shapes, strict=True))

    def sample_posterior(
        self, x: Float[Array, "batch visible"], noise: tuple[Float[Array, "k batch _"], ...]
    ) -> tuple[tuple[Distribution, ...], tuple[Float[Array, "k batch _"], ...]]:
        """Samples h_l ~ q(h_l | h_{l-1}), reparameterized where the layer is Gaussian, and the distributions that
        they came from.

        The first distribution has shape `[batch, units]`: q(h_1 | x) is evaluated once per example, not once
        per sample.

        Raises IWAEError for an `x` of another shape, where one example alone would be taken for a batch of numbers, or
        of whole numbers, as rows are before `prepare`.
        """
        distributions, samples = [], []
        below = self.encoder_input(x)
        for layer, layer_noise in zip(self.encoder, noise, strict=True):
            posterior = layer(below)
            below = posterior.sample(layer_noise)
            distributions.append(posterior)
            samples.append(below)
        return tuple(distributions), tuple(samples)

    def encoder_input(self, x: Float[Array, "batch visible"]) -> Float[Array, "batch inputs"]:
        """What the encoder sees of x: zeros where values are missing (Mattei & Frellsen 2019), and with the mask
        concatenated ones where they are not.
        """
        if x.ndim != 2 or x.shape[1] != self.visible:
            raise IWAEError(f"`x` must have shape [batch, {self.visible}], got {list(x.shape)}")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise IWAEError(
                f"`x` must be prepared rows of floating point numbers, got {x.dtype}: call model.prepare(rows, key)"
            )
        inputs = self.likelihood.inputs(x)
        filled = jnp.where(jnp.isnan(inputs), 0.0, inputs) if self.likelihood.missing else inputs
        return filled if self.mask == "zeros" else jnp.concatenate([filled, ~jnp.isnan(x)], axis=1)

    def log_posterior(
        self, x: Float[Array, "batch visible"], latents: tuple[Float[Array, "*k batch _"], ...]
    ) -> Float[Array, "*k batch"]:
        """log q(h_1, ..., h_L | x) in nats of given latents."""
        below = (self.encoder_input(x), *latents[:-1])
        return sum(layer.log_prob(h, b) for layer, b, h in zip(self.encoder, below, latents, strict=True))  # pyright: ignore[reportReturnType]

    def log_joint(
        self, x: Float[Array, "batch visible"], latents: tuple[Float[Array, "*k batch _"], ...]
    ) -> Float[Array, "*k batch"]:
        """log p(x, h_1, ..., h_L) in nats of given latents."""
        return self.log_prior(latents) + self.log_visible(x, latents[0])

    def log_visible(
        self, x: Float[Array, "batch visible"], first: Float[Array, "*k batch _"]
    ) -> Float[Array, "*k batch"]:
        """log p(x | h_1) in nats of what is observed, and of which values are where that is modelled."""
        found = self.decoder[0].log_prob(x, first)
        if self.missing is None:
            return found
        return found + self.missing.log_prob(x, self.likelihood.for_rows(self.decoder[0](first), x))

    def log_prior(self, latents: tuple[Float[Array, "*k batch _"], ...]) -> Float[Array, "*k batch"]:
        """log p(h_1, ..., h_L) in nats."""
        total = self.top_prior.log_prob(latents[-1])
        for layer, value, above in zip(self.decoder[1:], latents[:-1], latents[1:], strict=True):
            total = total + layer.log_prob(value, above)
        return total

    def log_weights_at(
        self, x: Float[Array, "batch visible"], noise: tuple[Float[Array, "k batch _"], ...]
    ) -> Float[Array, "k batch"]:
        """log w = log p(x, h) - log q(h | x) in nats, at the samples that `noise` gives."""
        visible, prior, posterior = self.log_terms_at(x, noise)
        return prior + visible - posterior

    def log_terms_at(self, x: Float[Array, "batch visible"], noise: tuple[Float[Array, "k batch _"], ...]) -> LogTerms:
        """The terms of log w, at the samples that `noise` gives."""
        posteriors, latents = self.sample_posterior(x, noise)
        log_q = sum(q.log_prob(h) for q, h in zip(posteriors, latents, strict=True))
        return LogTerms(self.log_visible(x, latents[0]), self.log_prior(latents), log_q)  # pyright: ignore[reportArgumentType]

    def log_weights(
        self, x: Float[Array, "batch visible"], key: Key[Array, ""], num_samples: int
    ) -> Float[Array, "k batch"]:
        """log w_i of `num_samples` fresh posterior samples per example, in nats (Burda et al. 2015, equation 8)."""
        return self.log_weights_at(x, self.draw_noise(key, num_samples, x.shape[0]))

    def decode(self, top: Float[Array, "n _"], key: Key[Array, ""]) -> Float[Array, "n visible"]:
        """Means of the visible layer, in the units of the rows, after ancestral sampling downwards from values of the
        top layer h_L.
        """
        return self.likelihood.original(self._descend(top, key)[1].mean)

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
        return visible.sample(jax.random.normal(visible_key, visible.mean.shape, self.dtype)), latents

    def _sample_prior(self, key: Key[Array, ""], num: int) -> Float[Array, "num _"]:
        prior = self.top_prior
        return prior.sample(jax.random.normal(key, (num, prior.noise_width(self.latent[-1])), self.dtype))

    def _descend(
        self, top: Float[Array, "n _"], key: Key[Array, ""]
    ) -> tuple[tuple[Float[Array, "n _"], ...], Distribution]:
        """The latents, h_1 first, of ancestral sampling from `top`, and the visible layer's distribution."""
        latents = [top]
        for i in reversed(range(1, len(self.decoder))):
            conditional = self.decoder[i](latents[0])
            noise = jax.random.normal(jax.random.fold_in(key, i), conditional.mean.shape, self.dtype)
            latents.insert(0, conditional.sample(noise))
        return tuple(latents), self.decoder[0](latents[0])


def _count_inputs(likelihood: Likelihood, visible: int, mask: Mask) -> int:
    return likelihood.num_inputs(visible) + (visible if mask == "concatenate" else 0)


def _part(kind: Kind, architecture: Architecture) -> tuple[Any, dict[str, Any]]:
    """The class of a part, and what it is made with."""
    return class_at(kind.home), {name: getattr(architecture, name) for name in kind.options}
