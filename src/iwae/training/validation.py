"""The bound on validation examples, by which one epoch is compared with another."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from iwae import bounds
from iwae.arithmetic import standard_arithmetic
from iwae.data import Dataset
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
