"""Hamiltonian Monte Carlo on many rows side by side, for targets that are weighted sums of log densities."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Term = Callable[[Array], Array]
"""A log density in nats up to a constant: positions `[rows, dim]` in, `[rows]` out, each row by itself."""


SHORTEST = 0.1
"""The shortest steps of a move, as a share of the longest."""


class Point(NamedTuple):
    """A position, and the value and gradient of every term there: a target with other weights needs no new one."""

    position: Float[Array, "rows dim"]
    values: tuple[Float[Array, " rows"], ...]
    gradients: tuple[Float[Array, "rows dim"], ...]


def evaluate(terms: Sequence[Term], position: Float[Array, "rows dim"]) -> Point:
    """The point at a position."""

    def summed(term: Term, h: Array) -> tuple[Array, Array]:
        values = term(h)
        return jnp.sum(values), values

    found = [jax.value_and_grad(lambda h, term=term: summed(term, h), has_aux=True)(position) for term in terms]
    return Point(position, tuple(values for (_, values), _ in found), tuple(gradient for _, gradient in found))


def weighted(weights: Float[Array, " terms"], arrays: Sequence[Array]) -> Array:
    """sum_i weights[i] arrays[i]."""
    return sum(weights[i] * array for i, array in enumerate(arrays))  # pyright: ignore[reportReturnType]


def leapfrog(
    terms: Sequence[Term],
    weights: Float[Array, " terms"],
    point: Point,
    momentum: Float[Array, "rows dim"],
    step: Float[Array, "rows dim"],
    count: int | Array,
) -> tuple[Point, Float[Array, "rows dim"]]:
    """`count` leapfrog steps (Neal 2011, section 2.3) from a point, at one gradient each: the last point and momentum.

    Reversible: from the last point with the momentum turned round, it comes back to the first. Preserves volume.
    """

    def gradient(position: Array) -> Array:
        return jax.grad(lambda h: jnp.sum(weighted(weights, [term(h) for term in terms])))(position)

    def body(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        position, momentum = carry
        position = position + step * momentum
        return position, momentum + step * gradient(position)

    momentum = momentum + 0.5 * step * weighted(weights, point.gradients)
    # Only the last point needs values, so the others are spared their cost.
    position, momentum = jax.lax.fori_loop(0, count - 1, body, (point.position, momentum))
    last = evaluate(terms, position + step * momentum)
    return last, momentum + 0.5 * step * weighted(weights, last.gradients)


def noise_width(dim: int) -> int:
    """How many standard normals a move in `dim` dimensions takes."""
    return dim + 2


def move(
    terms: Sequence[Term],
    weights: Float[Array, " terms"],
    point: Point,
    step: Float[Array, "rows dim"],
    count: int | Array,
    noise: Float[Array, "rows width"],
) -> tuple[Point, Float[Array, " rows"]]:
    """One HMC move of every row: the next point, and the probability with which the proposal was accepted.

    Leaves the density that is proportional to exp(sum_i weights[i] terms[i]) invariant, and is reversible with respect
    to it. `noise` (`noise_width` standard normals a row) is the momentum, the shortening of the steps, and the draw
    that accepts. All steps of a move are `step` times one factor, uniform from `SHORTEST` to 1: trajectories of a
    fixed length can come back to where they began, and then nothing moves (Neal 2011, section 3.2). A proposal whose
    density is not a number is refused.
    """
    momentum, factor, draw = noise[:, :-2], jax.scipy.special.ndtr(noise[:, -2:-1]), noise[:, -1]
    end, last = leapfrog(terms, weights, point, momentum, step * (SHORTEST + (1.0 - SHORTEST) * factor), count)
    gained = weighted(weights, [new - old for new, old in zip(end.values, point.values, strict=True)])
    change = gained + 0.5 * (jnp.sum(jnp.square(momentum), axis=-1) - jnp.sum(jnp.square(last), axis=-1))
    probability = jnp.where(jnp.isnan(change), 0.0, jnp.exp(jnp.minimum(change, 0.0)))
    accepted = jax.scipy.special.log_ndtr(draw) < change
    chosen = jax.tree.map(lambda new, old: jnp.where(accepted.reshape(-1, *[1] * (new.ndim - 1)), new, old), end, point)
    return chosen, probability
