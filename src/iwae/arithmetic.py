"""The arithmetic that results depend on, whatever JAX was told for the rest of the program."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def standard_arithmetic() -> Iterator[None]:
    """Within it, and in a function that it decorates, JAX computes as this package means it: in float32 where nothing
    else is said, by its usual rules of promotion. A program may have the 64-bit mode on, or forbid these rules
    (`jax_enable_x64`, `jax_numpy_dtype_promotion`, `jax_numpy_rank_promotion`): figures are the same.
    """
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
