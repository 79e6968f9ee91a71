"""Which rows make up each minibatch: those that follow in the data's order, or a new permutation in every epoch."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from iwae.data.dataset import Dataset

# Steps draw from `fold_in(key, step)`, and no int32 step is this.
_ORDER = 2**32 - 1


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Minibatches in one pass over the training examples; a last partial one counts where the data are shuffled, since
    it is filled up then.
    """
    rows = len(dataset.train)
    return -(-rows // batch_size) if dataset.shuffled else rows // batch_size


@partial(jax.jit, static_argnames=("num_rows", "batch_size"))
def epoch_order(key: Key[Array, ""], epoch: Int[Array, ""], *, num_rows: int, batch_size: int) -> Int[Array, " steps"]:
    """Indices of the rows in one epoch's minibatches, one after the other: a permutation, filled up from its own
    beginning to whole minibatches, so that every row is seen. It depends on `key`, a seed's key for training, and the
    epoch alone.
    """
    order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, jnp.uint32(_ORDER)), epoch), num_rows)
    return jnp.concatenate([order, order[: -num_rows % batch_size]])
