"""The rows of a chunk of steps, on the device: all of the data, or of data that stay in a file those of the chunk."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from iwae.arithmetic import standard_arithmetic
from iwae.data.dataset import Dataset
from iwae.data.disk_rows import PIECE, DiskRows

MOST_STEPS = 1000
"""Of a chunk whose rows are sent for it."""
Orders = tuple[Int[Array, " rows"], ...]


@dataclass(frozen=True)
class Feed:
    """Where the training rows of some models come from. `most_steps` is how many steps of a chunk they may be for, and
    `put` places rows on the device, or on all.
    """

    data: Any
    batch_size: int
    models: int
    most_steps: int
    put: Callable[[Any], Array]

    @classmethod
    def of(cls, dataset: Dataset, batch_size: int, models: int, put: Callable[[Any], Array] = jnp.asarray) -> "Feed":
        """For so many models that are trained together."""
        data: Any = dataset.train
        if not isinstance(data, DiskRows):
            with standard_arithmetic():
                return cls(put(jnp.asarray(data)), batch_size, models, len(data), put)
        of_a_step = models * batch_size * data.shape[1] * data.dtype.itemsize
        return cls(data, batch_size, models, min(max(1, PIECE // of_a_step), MOST_STEPS), put)

    def rows(self, first: int, num_steps: int, orders: Orders | None) -> tuple[Array, Orders | None]:
        """Rows on the device for `num_steps` steps from step `first` of an epoch, and each model's order of them: those
        given, or where the rows of these steps alone are there, the orders' places among them. Always of one shape.
        """
        if not isinstance(self.data, DiskRows):
            return self.data, orders
        start, count, room = first * self.batch_size, num_steps * self.batch_size, self.most_steps * self.batch_size
        own = orders or (np.arange(len(self.data) // self.batch_size * self.batch_size, dtype=np.int32),)
        rows = np.zeros((len(own) * room, self.data.shape[1]), self.data.dtype)
        for model, order in enumerate(own):
            rows[model * room : model * room + count] = self.data[np.asarray(order)[start : start + count]]
        places = [jnp.arange(len(order), dtype=jnp.int32) + (model * room - start) for model, order in enumerate(own)]
        return self.put(jnp.asarray(rows)), tuple(places * (1 if orders else self.models))
