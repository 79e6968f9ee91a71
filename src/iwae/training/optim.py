"""The paper's Adam, as Optax's with another initial state, and Nadam."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import optax

# Facts of the code that accompanied the paper, whose gradient is a sum over the minibatch. The paper's text
# gives beta1 = 0.9.
PAPER_BETA1 = 0.99
PAPER_BETA2 = 0.999
PAPER_EPSILON = 1e-4


Moments = Literal["delayed", "current"]
"""Which moments a step of the paper's Adam uses: those before this step's gradient, or with it."""


class Directions(optax.GradientTransformation):
    """An optimizer without a learning rate: a schedule's stages multiply its updates by theirs. Any other optimizer of
    Optax has its own.
    """


@functools.cache
def paper_adam(batch_size: int = 20, *, beta1: float = PAPER_BETA1, moments: Moments = "delayed") -> Directions:
    """Adam (Kingma & Ba 2014) as the paper's code ran it, without a learning rate: the second moment v starts at one,
    not at zero, with the usual bias corrections all the same, and epsilon = 1e-4 is added to sqrt(v) itself, not to
    its corrected value: sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + epsilon).

    Theano's updates are simultaneous: step t uses the moments m and v as they were before its gradient (`delayed`),
    with the new count t, so that the first step moves nothing. `current` takes the gradient into the moments first,
    as Adam is published.

    The paper's gradient is the bound's, summed over the batch: the loss's is multiplied by -`batch_size`, and the
    updates go up. `optax.chain(paper_adam(20), optax.scale(1e-3))` is an optimizer of the usual kind; the stages of a
    schedule set the rate where runs are trained. The same object comes back for the same arguments, so that a training
    step compiled with it is found again.
    """
    adam = optax.scale_by_adam(b1=beta1, b2=PAPER_BETA2, eps=PAPER_EPSILON)

    def init(params: optax.Params) -> optax.OptState:
        state = adam.init(params)
        assert isinstance(state, optax.ScaleByAdamState)
        return state._replace(nu=jax.tree.map(jnp.ones_like, state.nu))

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        # The moments are Optax's; its own directions add epsilon elsewhere and are not used.
        _, after = adam.update(_summed(updates, batch_size), state, params)
        assert isinstance(state, optax.ScaleByAdamState)
        assert isinstance(after, optax.ScaleByAdamState)
        t, used = after.count, state if moments == "delayed" else after
        correction = jnp.sqrt(1.0 - PAPER_BETA2**t) / (1.0 - beta1**t)
        directions = jax.tree.map(
            lambda m, v: (correction * m / (jnp.sqrt(v) + PAPER_EPSILON)).astype(m.dtype), used.mu, used.nu
        )
        return directions, after

    return Directions(init, update)


@functools.cache
def adam() -> Directions:
    """Adam as Optax has it, without a learning rate."""
    return Directions(*optax.chain(optax.scale_by_adam(), optax.scale(-1.0)))


@functools.cache
def nadam(batch_size: int = 100, *, beta1: float = 0.9) -> Directions:
    """Adam with Nesterov's momentum (Dozat 2016), its moments starting at zero, without a learning rate; of the summed
    gradient and going up, as `paper_adam`.
    """
    inner = optax.scale_by_adam(b1=beta1, b2=PAPER_BETA2, nesterov=True)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        return inner.update(_summed(updates, batch_size), state, params)

    return Directions(inner.init, update)


def _summed(gradient: optax.Updates, batch_size: int) -> optax.Updates:
    """The derivative of the bound summed over the batch, from that of the mean loss."""
    return jax.tree.map(lambda leaf: -batch_size * leaf, gradient)
