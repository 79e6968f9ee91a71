"""The conditional distributions that are built on a network's features.

A conditional layer has `units`, gives a distribution when called, and scores values with `log_prob(value, given)`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from iwae.models.distributions import Bernoulli, Distribution, Normal
from iwae.models.networks.base import Linear, MakeNetwork, Network, count_features, features
from iwae.models.networks.tanh import TanhNetwork


@runtime_checkable
class ConditionalLayer(Protocol):
    """A conditional distribution of some units, given the layer next to it."""

    @property
    def units(self) -> int:
        """Number of units of the distribution."""
        ...

    def __call__(self, given: Array) -> Distribution:
        """The distribution, for every row of `given`."""
        ...

    def log_prob(self, value: Array, given: Array) -> Array:
        """Log density of `value` in nats, summed over units, under the distribution that `given` makes."""
        ...


class GaussianLayer(eqx.Module):
    """A diagonal Gaussian whose mean and sigma = exp(linear) are linear in the features of a network."""

    reparameterized: ClassVar[bool] = True
    network: Network
    mean: Linear
    log_sigma: Linear

    @classmethod
    def create(
        cls,
        n_in: int,
        hidden: Sequence[int],
        n_out: int,
        key: Key[Array, ""],
        network: MakeNetwork = TanhNetwork.create,
        **options: Any,
    ) -> "GaussianLayer":
        """The paper's layer, on a tanh network: every linear layer is drawn independently, the two heads too.
        `options` are those of a subclass.
        """
        keys = jax.random.split(key, 3)
        made = network((n_in, *hidden), keys[0])
        return cls._with_heads(made, count_features(made, n_in), n_out, keys[1:], **options)

    @classmethod
    def on(cls, network: Network, units: int, *, inputs: int, key: Key[Array, ""], **options: Any) -> "GaussianLayer":
        """A layer of `units` on any network that takes `inputs` numbers. Raises as `count_features` does."""
        return cls._with_heads(network, count_features(network, inputs), units, jax.random.split(key), **options)

    @classmethod
    def _with_heads(cls, network: Network, count: int, units: int, keys: Key[Array, " two"]) -> "GaussianLayer":
        return cls(network, Linear.create(count, units, keys[0]), Linear.create(count, units, keys[1]))

    @property
    def units(self) -> int:
        """Number of units of the distribution."""
        return self.mean.bias.shape[-1]

    @property
    def settings(self) -> dict[str, Any]:
        """The options of `Architecture` that it was made with: those of a subclass."""
        return {}

    @property
    def heads(self) -> tuple[Linear, ...]:
        """The linear layers on the features."""
        return (self.mean, self.log_sigma)

    def with_heads(self, heads: Sequence[Linear]) -> "GaussianLayer":
        """The same layer with other `heads`."""
        return replace(self, mean=heads[0], log_sigma=heads[1])

    def __call__(self, given: Float[Array, "*rows n_in"]) -> Normal:
        found = features(self.network, given)
        return Normal(self.mean(found), self.log_sigma(found))

    def log_prob(
        self, value: Float[Array, "*more n_out"], given: Float[Array, "*rows n_in"]
    ) -> Float[Array, "*result"]:
        """Log density of `value` in nats, summed over units, under the distribution that `given` makes."""
        return self(given).log_prob(value)


class BernoulliLayer(eqx.Module):
    """Independent Bernoullis whose logits are linear in the features of a network: binary latents."""

    reparameterized: ClassVar[bool] = False
    network: Network
    logits: Linear

    @classmethod
    def create(
        cls,
        n_in: int,
        hidden: Sequence[int],
        n_out: int,
        key: Key[Array, ""],
        network: MakeNetwork = TanhNetwork.create,
    ) -> "BernoulliLayer":
        """On a tanh network; every linear layer is drawn independently."""
        keys = jax.random.split(key)
        made = network((n_in, *hidden), keys[0])
        return cls(made, Linear.create(count_features(made, n_in), n_out, keys[1]))

    @classmethod
    def on(cls, network: Network, units: int, *, inputs: int, key: Key[Array, ""]) -> "BernoulliLayer":
        """A layer of `units` on any network that takes `inputs` numbers. Raises as `count_features` does."""
        return cls(network, Linear.create(count_features(network, inputs), units, key))

    @property
    def units(self) -> int:
        """Number of units of the distribution."""
        return self.logits.bias.shape[-1]

    @property
    def heads(self) -> tuple[Linear, ...]:
        """The linear layer on the features."""
        return (self.logits,)

    def with_heads(self, heads: Sequence[Linear]) -> "BernoulliLayer":
        """The same layer with other `heads`."""
        return replace(self, logits=heads[0])

    def __call__(self, given: Float[Array, "*rows n_in"]) -> Bernoulli:
        return Bernoulli(self.logits(features(self.network, given)))

    def log_prob(
        self, value: Float[Array, "*more n_out"], given: Float[Array, "*rows n_in"]
    ) -> Float[Array, "*result"]:
        """Log probability of `value` in nats, summed over units, under the distribution that `given` makes."""
        return self(given).log_prob(value)


LATENT_LAYERS: dict[str, type[GaussianLayer] | type[BernoulliLayer]] = {
    "gaussian": GaussianLayer,
    "bernoulli": BernoulliLayer,
}
"""The kinds of stochastic layers between the data and the prior, by name."""
