"""What the page shows, computed: the decoded picture at given latents, draws from the prior, encoded examples."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from iwae.data import Dataset
from iwae.errors import IWAEError
from iwae.evaluation.active_units import ActiveUnits
from iwae.evaluation.batches import NoiseLayout, example_noise, on_data, preparation_key, prepare_rows
from iwae.models.distributions import Bernoulli
from iwae.models.matmul import product
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

MAX_SAMPLES = 500
# More sliders than this are no help to anyone, and their values must fit into a request.
MAX_SLIDERS = 200
SPLIT = "test"
# The seed of `iwae evaluate` when none is given: an image's L_k here is the one in that command's file.
SEED = 0


@dataclass(frozen=True)
class Unit:
    """A unit of the top layer: its index from 0, the variance of its posterior mean over the training data."""

    index: int
    variance: float


@dataclass(frozen=True)
class Encoded:
    """One test example and what the model makes of it.

    `original` is the example as stored, in [0, 1]; `encoded` the binary vector that was measured (the same where
    the data are binary); `reconstruction` the weighted mean of the decoded samples; each `[visible]`.
    `log_likelihood` is L_k in nats, `effective_sample_size` is from 1 to k, and `values` is the posterior mean of
    the units that have sliders.
    """

    original: np.ndarray
    encoded: np.ndarray
    reconstruction: np.ndarray
    log_likelihood: float
    effective_sample_size: float
    values: np.ndarray


class Reconstruction(eqx.Module):
    """Importance-weighted figures of one example; see `weighted_reconstruction`."""

    mean: Float[Array, " visible"]
    log_likelihood: Float[Array, ""]
    effective_sample_size: Float[Array, ""]


def decode_at_means(model: HierarchicalVAE, top: Float[Array, "n _"]) -> Float[Array, "n visible"]:
    """Means of the visible layer, every layer between at its conditional mean: no noise, so that it is smooth."""
    value = top
    for layer in reversed(model.decoder):
        value = layer(value).mean
    return value


def top_posterior_mean(model: HierarchicalVAE, x: Float[Array, "batch visible"]) -> Float[Array, "batch _"]:
    """The mean of q(h_L | h_{L-1}) with every layer below at its own mean, as in `decode_at_means`."""
    value = x
    for layer in model.encoder:
        value = layer(value).mean
    return value


def weighted_reconstruction(
    model: HierarchicalVAE,
    x: Float[Array, "1 visible"],
    noise: tuple[Float[Array, "k 1 _"], ...],
    num_samples: Int[Array, ""],
) -> Reconstruction:
    """The first `num_samples` posterior samples' decoded means, weighted by the normalized weights w_i / sum w.

    With them L_k = log (1/k) sum w_i, and the effective sample size (sum w)^2 / sum w^2. The rest of `noise` is
    computed and then ignored: one compiled program serves every k. The figures are NaN where every weight is zero.
    """
    posteriors, latents = model.sample_posterior(x, noise)
    log_q = sum(q.log_prob(h) for q, h in zip(posteriors, latents, strict=True))
    log_weights = (model.log_joint(x, latents) - log_q)[:, 0]
    log_weights = jnp.where(jnp.arange(len(log_weights)) < num_samples, log_weights, -jnp.inf)
    weights = jax.nn.softmax(log_weights)
    means = model.decoder[0](latents[0]).mean[:, 0]
    return Reconstruction(
        product(weights, means),
        jax.nn.logsumexp(log_weights) - jnp.log(num_samples.astype(jnp.float32)),
        1.0 / jnp.sum(jnp.square(weights)),
    )


@eqx.filter_jit
def _decode(model: HierarchicalVAE, top: Float[Array, "n _"]) -> Float[Array, "n visible"]:
    return decode_at_means(model, top)


@eqx.filter_jit
def _encode(
    model: HierarchicalVAE,
    x: Float[Array, "1 visible"],
    index: Int[Array, " 1"],
    key: Key[Array, ""],
    num_samples: Int[Array, ""],
    layout: NoiseLayout,
) -> tuple[Reconstruction, Float[Array, "1 _"]]:
    noise = example_noise(layout, key, index, jnp.arange(MAX_SAMPLES))
    return weighted_reconstruction(model, x, noise, num_samples), top_posterior_mean(model, x)


def slider_units(active: ActiveUnits) -> tuple[Unit, ...]:
    """The top layer's active units, the largest variance first, at most 200; where none is active, all of them."""
    variances, is_active = active.variances[-1], active.active[-1]
    order = np.argsort(-variances, kind="stable")
    shown = [i for i in order if is_active[i]] or list(order)
    return tuple(Unit(int(i), float(variances[i])) for i in shown[:MAX_SLIDERS])


class ModelView:
    """A model, the units that have sliders, and the test examples. The top layer's other units stay at the
    prior's mean.

    For a pruned run, `kept` gives it the noise of the model that it was made from (see `iwae.likelihoods`).
    """

    def __init__(
        self,
        model: HierarchicalVAE,
        dataset: Dataset,
        active: ActiveUnits,
        kept: tuple[np.ndarray, ...] | None = None,
    ):
        self.model = model = on_data(model, dataset, SPLIT)[0] if len(dataset.split(SPLIT)) else model
        self.units = slider_units(active)
        self.units_are_binary = isinstance(model.prior, Bernoulli)
        self.num_active = active.counts[-1]
        self.image_shape = dataset.image_shape
        self.binary = dataset.binary
        self.num_examples = len(dataset.split(SPLIT))
        self._dataset = dataset
        self._columns = np.array([unit.index for unit in self.units])
        self._resting = np.asarray(model.prior.resting(model.latent[-1]), np.float32)
        self._layout = NoiseLayout.of(model, kept)

    def compile(self) -> None:
        """Runs everything once, so that the first request is as quick as the others."""
        self.decode(self.resting())
        self.prior(0)
        if self.num_examples:
            self.encode(0, 1)

    def decode(self, values: np.ndarray) -> np.ndarray:
        """The picture `[visible]`, in [0, 1], at the sliders' `values`, in the order of `units`."""
        top = self._resting[None].copy()
        top[0, self._columns] = values
        return np.asarray(_decode(self.model, jnp.asarray(top)))[0]

    def resting(self) -> np.ndarray:
        """The prior's mean of the units that have sliders."""
        return self._resting[self._columns]

    def prior(self, draw: int) -> np.ndarray:
        """Values for the sliders from the model's prior; the same number gives the same draw."""
        key = jax.random.fold_in(purpose_key(SEED, Purpose.SAMPLE), draw)
        noise = jax.random.normal(key, (self.model.latent[-1],))
        return np.asarray(self.model.prior.sample(noise))[self._columns]

    def encode(self, index: int, num_samples: int) -> Encoded:
        """Encodes a test example with `num_samples` importance samples: the draws that `iwae evaluate` makes.

        Raises IWAEError for an index or a number of samples that is out of range.
        """
        if not 0 <= index < self.num_examples:
            raise IWAEError(
                f"the index must be from 0 to {self.num_examples - 1}, got {index}"
                if self.num_examples
                else "this dataset has no test examples to encode"
            )
        if not 1 <= num_samples <= MAX_SAMPLES:
            raise IWAEError(f"the number of samples k must be from 1 to {MAX_SAMPLES}, got {num_samples}")
        row, at = self._dataset.split(SPLIT)[index : index + 1], jnp.array([index])
        x = self._binarize(row, at)
        key = purpose_key(SEED, Purpose.LIKELIHOOD)
        result, posterior_mean = _encode(self.model, x, at, key, jnp.int32(num_samples), self._layout)
        return Encoded(
            row[0].astype(np.float64) * self._dataset.scale,
            np.asarray(x)[0],
            np.asarray(result.mean),
            float(result.log_likelihood),
            float(result.effective_sample_size),
            np.asarray(posterior_mean)[0, self._columns],
        )

    def _binarize(self, row: np.ndarray, index: Int[Array, " 1"]) -> Float[Array, "1 visible"]:
        """The bits that every measurement of this example uses."""
        return prepare_rows(self.model.likelihood, jnp.asarray(row), index, preparation_key(SPLIT))
