"""The bound on validation examples, by which one epoch is compared with another, and when that is enough."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from iwae import bounds
from iwae.arithmetic import standard_arithmetic
from iwae.data import Dataset
from iwae.errors import check_count
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

MOST_EXAMPLES = 1000
BLOCK = 100


@standard_arithmetic()
def validation_bound(model: HierarchicalVAE, dataset: Dataset, num_samples: int) -> float | None:
    """The mean of L_k over validation examples, in nats, with k = `num_samples`; None where there are none.

    Its draws are the same at every call, so that models are compared on the same noise. Of more than 1,000 examples
    those are the first, and of more than 100 whole hundreds.
    """
    count = min(len(dataset.valid), MOST_EXAMPLES)
    if count == 0:
        return None
    blocks = max(1, count // BLOCK)
    rows = dataset.valid[: blocks * BLOCK if count > BLOCK else count]
    found = _bounds(model, jnp.asarray(rows.reshape(blocks, -1, rows.shape[-1])), num_samples)
    return float(np.asarray(found, np.float64).mean())


@eqx.filter_jit
def _bounds(model: HierarchicalVAE, rows: Array, num_samples: int) -> Float[Array, "blocks examples"]:
    keys = jax.random.split(purpose_key(0, Purpose.VALIDATE), len(rows))

    def of_block(block: tuple[Array, Array]) -> Float[Array, " examples"]:
        data_key, noise_key = jax.random.split(block[1])
        return bounds.iwae(model.log_weights(model.prepare(block[0], data_key), noise_key, num_samples))

    return jax.lax.map(of_block, (rows, keys))


class EarlyStopping:
    """Says when scores have stopped rising: after `patience` of them in a row that are not above the best one by the
    relative `tolerance`. `best` is the best so far, and `waited` says how many came since.
    """

    def __init__(self, patience: int, tolerance: float = 0.0, *, best: float = -math.inf, waited: int = 0):
        """Raises IWAEError for a patience below one."""
        check_count("patience", patience)
        self.patience, self.tolerance, self.best, self.waited = patience, tolerance, best, waited

    def improves(self, score: float) -> bool:
        """Takes the next score, and says whether it is the best one."""
        least = self.best + self.tolerance * abs(self.best) if math.isfinite(self.best) else self.best
        improves = score > least
        self.best, self.waited = (score, 0) if improves else (self.best, self.waited + 1)
        return improves

    @property
    def is_over(self) -> bool:
        """Whether it is time to stop."""
        return self.waited >= self.patience
