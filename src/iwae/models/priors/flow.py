"""A normalizing flow as the prior of the top layer."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.models.distributions import Prior, StandardNormal
from iwae.models.flows import Flow


class FlowPrior(Prior):
    """The distribution of f(z) for z ~ N(0, I) and a learned `flow` f (Rezende & Mohamed 2015; Dinh et al. 2017):
    log p(h) = log N(f^-1(h); 0, I) + log |det d f^-1 / d h|.
    """

    flow: Flow

    @classmethod
    def create(cls, units: int, inputs: int, key: Key[Array, ""], *, flow_layers: int, flow_hidden: int) -> "FlowPrior":
        """The standard normal at first."""
        return cls(Flow.create(units, flow_layers, flow_hidden, key))

    def log_prob(self, value: Float[Array, "*shape units"]) -> Float[Array, "*shape"]:
        """Log density in nats, summed over units."""
        base, log_det = self.flow.inverse(value)
        return StandardNormal().log_prob(base) + log_det

    def sample(self, noise: Float[Array, "*shape units"]) -> Float[Array, "*shape units"]:
        """f of the standard normal `noise`."""
        return self.flow.forward(noise)

    def resting(self, units: int) -> Float[Array, " units"]:
        """f(0): where units are left when others are moved."""
        return self.flow.forward(jnp.zeros(units))

    @property
    def settings(self) -> dict[str, Any]:
        """The options that it was made with."""
        return self.flow.settings
