"""Active units: how much each unit's posterior mean varies over data."""

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike

from iwae.arithmetic import standard_arithmetic
from iwae.data.dataset import Dataset, Split
from iwae.errors import check_count
from iwae.evaluation.batches import NoiseLayout, OnExamples, example_noise, on_data, prepared_batches
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

ACTIVE_THRESHOLD = 0.01
PAPER_ACTIVE_EXAMPLES = 500
ENCODE_ROWS = 2000


@dataclass(frozen=True)
class ActiveUnits:
    """Mean and variance over data of each unit's posterior mean, float64 arrays `[units]`, one per layer."""

    means: tuple[np.ndarray, ...]
    variances: tuple[np.ndarray, ...]

    def __repr__(self) -> str:
        layers = (f"{count} of {len(own)}" for count, own in zip(self.counts, self.variances, strict=True))
        return f"ActiveUnits({' + '.join(layers)} units vary by more than {ACTIVE_THRESHOLD})"

    @property
    def active(self) -> tuple[np.ndarray, ...]:
        """bool `[units]` per layer: variance above 0.01 (Burda et al. 2015, section 5.2)."""
        return tuple(variance > ACTIVE_THRESHOLD for variance in self.variances)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of active units per layer."""
        return tuple(int(np.sum(active)) for active in self.active)


@standard_arithmetic()
def active_units(
    model: HierarchicalVAE,
    data: Dataset | ArrayLike,
    split: Split = "train",
    *,
    num_samples: int = 10,
    max_examples: int | None = None,
    seed: int = 0,
    on_examples: OnExamples | None = None,
) -> ActiveUnits:
    """A = Var_x(E_{q(u|x)}[u]) for every unit u, over a dataset's split or stored rows (Burda et al. 2015, section
    5.2).

    In layers above the first, E_{q(u|x)}[u] is averaged over `num_samples` samples of the layers below, and the
    variance that the averaging leaves, s^2 / num_samples, is subtracted; with a single sample nothing can be.

    `on_examples(done, total)` is called after each block.

    Raises IWAEError for no rows, rows that the model can't score, or no samples.
    """
    check_count("num_samples", num_samples)
    model, rows = on_data(model, data, split)
    key = purpose_key(seed, Purpose.ACTIVE_UNITS)
    means, spreads = [], []
    size = max(1, ENCODE_ROWS // num_samples)
    done = 0
    for x, indices, count, total in prepared_batches(model, rows, split, size, max_examples):
        mean, spread = _posterior_means(model, x, indices, key, num_samples)
        means.append([np.asarray(layer, np.float64)[:count] for layer in mean])
        spreads.append([np.asarray(layer, np.float64)[:count] for layer in spread])
        done += count
        if on_examples is not None:
            on_examples(done, total)
    all_means = [np.concatenate(layer) for layer in zip(*means, strict=True)]
    all_spreads = [np.concatenate(layer) for layer in zip(*spreads, strict=True)]
    return ActiveUnits(
        tuple(np.mean(mean, axis=0) for mean in all_means),
        tuple(
            np.var(mean, axis=0) - np.mean(spread, axis=0) / num_samples
            for mean, spread in zip(all_means, all_spreads, strict=True)
        ),
    )


@standard_arithmetic()
def paper_active_units(model: HierarchicalVAE, data: Dataset | ArrayLike) -> ActiveUnits:
    """The count as the paper's code made it: the first 500 training images, one sample of the layers below."""
    return active_units(model, data, num_samples=1, max_examples=PAPER_ACTIVE_EXAMPLES)


@eqx.filter_jit
def _posterior_means(
    model: HierarchicalVAE,
    x: Float[Array, "batch visible"],
    indices: Int[Array, " batch"],
    key: Key[Array, ""],
    num_samples: int,
) -> tuple[list[Float[Array, "batch _"]], list[Float[Array, "batch _"]]]:
    """Mean over samples of each layer's posterior mean, and its variance over them (zero for one sample)."""
    noise = example_noise(NoiseLayout.of(model), key, indices, jnp.arange(num_samples))
    posteriors, _ = model.sample_posterior(x, noise)
    means, spreads = [posteriors[0].mean], [jnp.zeros_like(posteriors[0].mean)]
    for posterior in posteriors[1:]:
        means.append(jnp.mean(posterior.mean, axis=0))
        spread = jnp.var(posterior.mean, axis=0, ddof=1) if num_samples > 1 else jnp.zeros_like(means[-1])
        spreads.append(spread)
    return means, spreads
