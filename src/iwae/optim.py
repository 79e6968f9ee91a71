"""The paper's Adam, as Optax's with another initial state."""

import functools

import jax
import jax.numpy as jnp
import optax

# Facts of the code that accompanied the paper, whose gradient is a sum over the minibatch. The paper's text
# gives beta1 = 0.9.
PAPER_BETA1 = 0.99
PAPER_BETA2 = 0.999
PAPER_EPSILON = 1e-4


@functools.cache
def paper_adam(beta1: float = PAPER_BETA1) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2014) as the paper's code ran it: the second moment starts at one, not at zero, with the
    usual bias corrections all the same, and epsilon = 1e-4 is added to the root of the corrected second moment.

    Gives directions, not yet multiplied by a learning rate, and keeps their sign: add them to go uphill. The same
    object comes back for the same `beta1`, so that a training step compiled with it is found again.
    """
    adam = optax.scale_by_adam(b1=beta1, b2=PAPER_BETA2, eps=PAPER_EPSILON)

    def init(params: optax.Params) -> optax.OptState:
        state = adam.init(params)
        assert isinstance(state, optax.ScaleByAdamState)
        return state._replace(nu=jax.tree.map(jnp.ones_like, state.nu))

    return optax.GradientTransformation(init, adam.update)
