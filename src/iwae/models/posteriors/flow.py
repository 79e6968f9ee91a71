"""Posteriors that a normalizing flow makes of a Gaussian."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from iwae.models.distributions import Normal
from iwae.models.flows import Flow
from iwae.models.layers import GaussianLayer
from iwae.models.networks.base import Linear, Network, features


class FlowNormal(eqx.Module):
    """The distribution of f(z; context) for z ~ `base` and a `flow` f."""

    base: Normal
    flow: Flow
    context: Float[Array, "*shape n_features"]

    @property
    def mean(self) -> Float[Array, "*shape units"]:
        """f of the base's mean: a point amid the distribution, of which an expectation is not known."""
        return self.flow.forward(self.base.mean, self.context)

    @property
    def log_sigma(self) -> Float[Array, "*shape units"]:
        """Logs of the base's standard deviations, as a scale."""
        return self.base.log_sigma

    def sample(self, noise: Float[Array, "*more units"]) -> Float[Array, "*result units"]:
        """f of the base's draw for standard normal `noise`."""
        return self.flow.forward(self.base.sample(noise), self.context)

    def log_prob(self, value: Float[Array, "*more units"]) -> Float[Array, "*result"]:
        """Log density in nats, summed over units."""
        base, log_det = self.flow.inverse(value, self.context)
        return self.base.log_prob(base) + log_det

    def at(self, index: Array) -> "FlowNormal":
        """The distributions of those rows."""
        base, context = jax.tree.map(lambda leaf: leaf[index], (self.base, self.context))
        return FlowNormal(base, self.flow, context)


class FlowLayer(GaussianLayer):
    """A normalizing flow of coupling layers on a diagonal Gaussian, both given the features of a network (Rezende &
    Mohamed 2015; Dinh et al. 2017). It is the Gaussian at first.
    """

    flow: Flow

    @classmethod
    def _with_heads(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        network: Network,
        count: int,
        units: int,
        keys: Key[Array, " two"],
        *,
        flow_layers: int,
        flow_hidden: int,
    ) -> "FlowLayer":
        mean, log_sigma = (Linear.create(count, units, key) for key in keys)
        flow = Flow.create(units, flow_layers, flow_hidden, jax.random.fold_in(keys[0], 1), context=count)
        return cls(network, mean, log_sigma, flow)

    def __call__(self, given: Float[Array, "*rows n_in"]) -> FlowNormal:  # pyright: ignore[reportIncompatibleMethodOverride]
        found = features(self.network, given)
        return FlowNormal(Normal(self.mean(found), self.log_sigma(found)), self.flow, found)

    @property
    def settings(self) -> dict[str, Any]:
        """The options that it was made with."""
        return self.flow.settings
