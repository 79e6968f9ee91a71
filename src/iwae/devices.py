"""Work spread over the devices of this process: examples that are measured, or models that are trained together. None
needs another, so that each device runs the program of a single one on its share, and nothing is sent between them.
"""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

T = TypeVar("T")


def num_devices() -> int:
    """The devices of this process."""
    return len(jax.local_devices())


def over_devices(array: Array | np.ndarray) -> Array:
    """An array whose first axis is a multiple of `num_devices`, divided among them along it."""
    return jnp.asarray(array) if num_devices() == 1 else jax.device_put(array, _sharding("share"))


def over_devices_inside(tree: T) -> T:
    """`over_devices` of a tree of arrays within a compiled program."""
    return tree if num_devices() == 1 else jax.lax.with_sharding_constraint(tree, _sharding("share"))


def on_every_device(tree: T) -> T:
    """A model, or another tree, with its arrays whole on every device."""
    if num_devices() == 1:
        return tree
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.device_put(arrays, _sharding()), rest)


def _sharding(*axes: Any) -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.local_devices()), ("share",)), PartitionSpec(*axes))
