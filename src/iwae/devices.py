"""Work spread over devices. Examples that are measured, or models that are trained together, are divided among those of
this process: none needs another, so that each device runs the program of a single one on its share, and nothing is sent
between them. One model's minibatches may be divided among the devices of all processes, which then sum the gradients.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
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


def _sharding(*axes: Any, devices: Sequence[Any] | None = None) -> NamedSharding:
    return NamedSharding(Mesh(np.array(devices or jax.local_devices()), ("share",)), PartitionSpec(*axes))


# One model that the devices of all processes train.


def everywhere(tree: T) -> T:
    """A tree whose arrays all processes have alike, with these whole on every device of all processes."""
    sharding = _sharding(devices=jax.devices())

    def put(leaf: Array) -> Array:
        value = np.asarray(leaf)
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

    return _converted(put, tree)


def here(tree: T) -> T:
    """What `everywhere` gave, on one device of this process."""
    return _converted(lambda leaf: leaf.addressable_data(0), tree)


def everywhere_inside(tree: T) -> T:
    """`everywhere` of a tree of arrays within a compiled program."""
    return jax.lax.with_sharding_constraint(tree, _sharding(devices=jax.devices()))


_divided = ContextVar("divided", default=False)


@contextlib.contextmanager
def minibatch_divided(x: Array) -> Iterator[Array]:
    """A minibatch within a program that is compiled inside, divided among the devices of all processes."""
    token = _divided.set(True)
    try:
        yield jax.lax.with_sharding_constraint(x, _sharding("share", devices=jax.devices()))
    finally:
        _divided.reset(token)


def is_minibatch_divided() -> bool:
    """Whether what is compiled here has a divided minibatch. Its axis must not be merged with one before it: the
    compiler would first send all of it to every device.
    """
    return _divided.get()


def from_first_process(tree: T) -> T:
    """A tree as process 0 has it; the others give one of the same shapes. Keys of random numbers stay their own."""
    from jax.experimental import multihost_utils

    arrays, rest = eqx.partition(tree, lambda leaf: eqx.is_array(leaf) and not _is_key(leaf))
    return eqx.combine(jax.tree.map(jnp.asarray, multihost_utils.broadcast_one_to_all(arrays)), rest)


def _converted(convert: Callable[[Array], Array], tree: T) -> T:
    def one(leaf: Array) -> Array:
        return jax.random.wrap_key_data(convert(jax.random.key_data(leaf))) if _is_key(leaf) else convert(leaf)

    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.tree.map(one, arrays), rest)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
