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


@functools.cache
def paper_adam(beta1: float = PAPER_BETA1, moments: Moments = "delayed") -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2014) as the paper's code ran it: the second moment v starts at one, not at zero, with the
    usual bias corrections all the same, and epsilon = 1e-4 is added to sqrt(v) itself, not to its corrected value:
    sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + epsilon).

    Theano's updates are simultaneous: step t uses the moments m and v as they were before its gradient (`delayed`),
    with the new count t, so that the first step moves nothing. `current` takes the gradient into the moments first,
    as Adam is published.

    Gives directions, not yet multiplied by a learning rate, and keeps their sign: add them to go uphill. The same
    object comes back for the same arguments, so that a training step compiled with it is found again.
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
        _, after = adam.update(updates, state, params)
        assert isinstance(state, optax.ScaleByAdamState)
        assert isinstance(after, optax.ScaleByAdamState)
        t, used = after.count, state if moments == "delayed" else after
        correction = jnp.sqrt(1.0 - PAPER_BETA2**t) / (1.0 - beta1**t)
        directions = jax.tree.map(
            lambda m, v: (correction * m / (jnp.sqrt(v) + PAPER_EPSILON)).astype(m.dtype), used.mu, used.nu
        )
        return directions, after

    return optax.GradientTransformation(init, update)


@functools.cache
def nadam(beta1: float = 0.9) -> optax.GradientTransformation:
    """Adam with Nesterov's momentum (Dozat 2016), its moments starting at zero. Gives directions, as `paper_adam`."""
    return optax.scale_by_adam(b1=beta1, b2=PAPER_BETA2, nesterov=True)
