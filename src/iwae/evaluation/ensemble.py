"""An ensemble of encoders for one decoder: log p(x) by multiple importance sampling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike

from iwae.arithmetic import standard_arithmetic
from iwae.data.dataset import Dataset, Split
from iwae.errors import IWAEError
from iwae.evaluation.batches import NoiseLayout, OnExamples, example_noise
from iwae.evaluation.examples import example_batches, log_mean, prepared
from iwae.evaluation.likelihood import check_samples, standard_error
from iwae.evaluation.log_weights import blocks_of, of_blocks
from iwae.models.layers import ConditionalLayer
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key


@dataclass(frozen=True)
class EnsembleLikelihoods:
    """Bounds of log p(x) from S encoders q_s and k samples of each, in nats: float64 arrays `[n]`.

    With the weights w = p(x, h) / ((1/S) sum_j q_j(h | x)), `miselbo` is the mean over encoders of log (1/k) sum_i
    w_si, and `log_likelihood` the log of the mean of all S k weights. Both are lower bounds in expectation, the second
    never below the first.
    """

    miselbo: np.ndarray
    log_likelihood: np.ndarray
    num_encoders: int
    num_samples: int

    def __repr__(self) -> str:
        figures = f"MISELBO {np.mean(self.miselbo):.2f}, NLL {self.nll:.2f} ± {self.stderr:.2f} nats"
        how = f"{self.num_encoders} encoders, {self.num_samples} samples of each"
        return f"EnsembleLikelihoods({figures} of {len(self.miselbo):,} examples; {how})"

    @property
    def nll(self) -> float:
        """Mean of -`log_likelihood`, in nats."""
        return -float(np.mean(self.log_likelihood))

    @property
    def stderr(self) -> float:
        """Standard error of `nll` over examples; NaN for a single one."""
        return standard_error(self.log_likelihood)


@standard_arithmetic()
def ensemble_likelihoods(
    models: Sequence[HierarchicalVAE],
    data: Dataset | ArrayLike,
    split: Split = "test",
    *,
    num_samples: int = 1,
    seed: int = 0,
    indices: Sequence[int] | np.ndarray | None = None,
    on_examples: OnExamples | None = None,
) -> EnsembleLikelihoods:
    """MISELBO (Kviman, Melin, Koptagel, Elvira & Lagergren 2022): the bound of an ensemble of encoders, those of
    `models`, for the decoder, the prior and the likelihood of the first of them.

    The encoders share all else: train them with the same decoder, held fixed (see the page on models). Where they
    differ, their mixture covers more of p(h | x), and the bound is tighter than the mean of their own. Of one model it
    is L_k, with the draws of `iwae.likelihoods`.

    `data`, `split` and `indices` are as for `iwae.ais`; the draws of an example depend on `seed`, its index, the
    sample's number and the encoder's alone. Raises IWAEError for no models, latents or inputs of other sizes,
    decoders that differ, and a number of samples outside 1 to 100,000.
    """
    check_samples("num_samples", num_samples)
    _check_models(models)
    model, rows, numbers = prepared(models[0], data, split, indices)
    model, encoders = model.with_prior_made(), tuple(each.encoder for each in models)
    layout, blocks = NoiseLayout.of(model), blocks_of(num_samples)
    # The first encoder has the draws of a model alone.
    keys = [purpose_key(seed, Purpose.LIKELIHOOD)]
    keys += [jax.random.fold_in(purpose_key(seed, Purpose.ENSEMBLE), s) for s in range(1, len(models))]
    each, whole = [], []
    for batch in example_batches(rows, numbers):
        found = [
            _log_weights(replace(model, encoder=own), encoders, batch.x, batch.indices, key, blocks, layout)
            for own, key in zip(encoders, keys, strict=True)
        ]
        log_weights = [of_blocks(one, num_samples, batch.real) for one in found]
        each.append(np.mean([log_mean(one) for one in log_weights], axis=0))
        whole.append(log_mean(np.concatenate(log_weights)))
        if on_examples is not None:
            on_examples(batch.start + batch.real, len(rows))
    return EnsembleLikelihoods(np.concatenate(each), np.concatenate(whole), len(models), num_samples)


def _check_models(models: Sequence[HierarchicalVAE]) -> None:
    if not models:
        raise IWAEError("an ensemble needs one or more `models`, got none")
    first = models[0]
    for number, other in enumerate(models[1:], 1):
        if (other.latent, other.visible, other.mask) != (first.latent, first.visible, first.mask):
            raise IWAEError(
                f"`models[{number}]` has {other.visible} inputs and latents of {other.latent}, `models[0]`"
                f" {first.visible} and {first.latent}: an ensemble's encoders are of one kind of latents"
            )
        if not eqx.tree_equal(
            (other.decoder, other.top_prior, other.missing), (first.decoder, first.top_prior, first.missing)
        ):
            raise IWAEError(
                f"`models[{number}]` has another decoder or prior than `models[0]`: an ensemble shares them; train its"
                " encoders with the decoder held fixed"
            )


@eqx.filter_jit
def _log_weights(
    model: HierarchicalVAE,
    encoders: tuple[tuple[ConditionalLayer, ...], ...],
    x: Float[Array, "examples visible"],
    indices: Int[Array, " examples"],
    key: Key[Array, ""],
    blocks: Int[Array, "blocks k"],
    layout: NoiseLayout,
) -> Float[Array, "blocks k examples"]:
    """log w of samples of the model's own encoder, by the mixture of all `encoders`."""

    def block(numbers: Array) -> Array:
        _, latents = model.sample_posterior(x, example_noise(layout, key, indices, numbers))
        log_q = jnp.stack([replace(model, encoder=each).log_posterior(x, latents) for each in encoders])
        return model.log_joint(x, latents) - jax.nn.logsumexp(log_q, axis=0) + math.log(len(encoders))

    return jax.lax.map(block, blocks)
