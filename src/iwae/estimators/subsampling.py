"""Which of an example's samples go through the backward pass: a few, drawn so that the gradient stays unbiased."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from iwae.estimators.gradients import Coefficients

TINY = 1e-30


def choose(
    coefficients: Coefficients, count: int, offsets: Float[Array, " batch"]
) -> tuple[Int[Array, "count batch"], Coefficients]:
    """Draws `count` samples of each example, and returns their indices and coefficients.

    A sample is drawn in proportion to the size of its coefficients, |a_i| + |b_i|, without replacement: one that would
    be expected more than once is taken for certain, the others by systematic sampling from `offsets`, which are
    uniform on [0, 1). Each coefficient is divided by how often its sample is expected (Horvitz & Thompson 1952), so
    that sums over samples keep their expectation. A single sample drawn by the normalized weights is what Burda et al.
    (2015, section 3) propose.
    """
    sizes = jnp.abs(coefficients.decoder) + jnp.abs(coefficients.encoder)
    expected = inclusion_probabilities(sizes, count)
    ends = jnp.cumsum(expected, axis=0)
    # Where fewer than `count` coefficients are not zero, or by rounding, the probabilities do not sum to it.
    scale = jnp.maximum(ends[-1] / count, TINY)
    points = (offsets + jnp.arange(count)[:, None]) * scale
    chosen = jnp.sum(ends[:, None, :] <= points, axis=0)
    chosen = jnp.minimum(chosen, len(ends) - 1)
    times = jnp.maximum(jnp.take_along_axis(expected, chosen, axis=0) / scale, TINY)

    def scaled(values: Array) -> Array:
        return jnp.take_along_axis(values, chosen, axis=0) / times

    decoder = scaled(coefficients.decoder)
    encoder = decoder if coefficients.encoder is coefficients.decoder else scaled(coefficients.encoder)
    return chosen, Coefficients(coefficients.bound, decoder, encoder)


def inclusion_probabilities(sizes: Float[Array, "k batch"], count: int) -> Float[Array, "k batch"]:
    """min(1, c s_i) with c such that they sum to `count` (Fearnhead & Clifford 2003, section 3.1); where fewer than
    `count` of the sizes s_i are above zero, 1 for each of them.
    """
    descending = -jnp.sort(-sizes, axis=0)
    # What is left from each place on; summed from the small end, so that no digits are lost.
    remaining = jnp.cumsum(descending[::-1], axis=0)[::-1]
    left = count - jnp.arange(len(sizes))[:, None]
    first = jnp.argmax(left * descending <= remaining, axis=0)
    rest = jnp.take_along_axis(remaining, first[None], axis=0)[0]
    factor = (count - first) / jnp.maximum(rest, TINY)
    return jnp.minimum(1.0, factor * sizes)
