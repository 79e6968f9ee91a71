"""Linear layers, networks, and the conditional distributions that are built on a network's features.

A network is any module from an input to features. Those of this library take any leading axes (`takes_batches`); any
other is taken for an Equinox module of one example, `[n_in]` to `[n_features]`, and is mapped over the rows.

A conditional layer has `units`, gives a distribution when called, and scores values with `log_prob(value, given)`.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.errors import IWAEError
from iwae.models.architecture import Precision
from iwae.models.distributions import Bernoulli, Distribution, Normal
from iwae.models.matmul import product

Module = TypeVar("Module")
Network = Callable[[Array], Array]


class Linear(eqx.Module):
    """`x @ weight + bias`, with `weight` `[in, out]` and `bias` `[out]`, both float32 whatever the product's
    `precision`.
    """

    weight: Float[Array, "n_in n_out"]
    bias: Float[Array, " n_out"]
    precision: Precision = eqx.field(static=True, default="float32")

    @classmethod
    def create(cls, n_in: int, n_out: int, key: Key[Array, ""]) -> "Linear":
        """Glorot uniform weights, +-sqrt(6 / (n_in + n_out)) (Glorot & Bengio 2010), and zero biases."""
        limit = math.sqrt(6.0 / (n_in + n_out))
        weight = jax.random.uniform(key, (n_in, n_out), minval=-limit, maxval=limit)
        return cls(weight, jnp.zeros(n_out))

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_out"]:
        return product(x, self.weight, self.precision) + self.bias


def with_precision(module: Module, precision: Precision) -> Module:
    """The same module, or tree of them, with the products of all its linear layers in that precision."""

    def is_linear(node: Any) -> bool:
        return isinstance(node, Linear)

    return jax.tree.map(
        lambda node: replace(node, precision=precision) if is_linear(node) else node, module, is_leaf=is_linear
    )


class TanhNetwork(eqx.Module):
    """Linear layers, each followed by tanh; none at all is the identity. The networks of Burda et al. (2015)."""

    takes_batches: ClassVar[bool] = True
    hidden: tuple[Linear, ...]

    @classmethod
    def create(cls, sizes: Sequence[int], key: Key[Array, ""]) -> "TanhNetwork":
        """A network of `sizes[0]` inputs and `sizes[-1]` features."""
        pairs = itertools.pairwise(sizes)
        return cls(tuple(Linear.create(a, b, jax.random.fold_in(key, i)) for i, (a, b) in enumerate(pairs)))

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_features"]:
        for linear in self.hidden:
            x = jnp.tanh(linear(x))
        return x


def features(network: Network, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_features"]:
    """What a network makes of every row."""
    if getattr(network, "takes_batches", False):
        return network(x)
    rows = jax.vmap(network)(x.reshape(-1, x.shape[-1]))
    return rows.reshape(*x.shape[:-1], -1)


def count_features(network: Network, inputs: int) -> int:
    """Number of features that a network gives for so many inputs.

    Raises IWAEError, with the network's own message, where it can't take them.
    """
    try:
        found = eqx.filter_eval_shape(lambda net, x: features(net, x), network, jnp.zeros((1, inputs)))
    except Exception as error:
        message = " ".join(str(error).split())[:200]
        raise IWAEError(
            f"{type(network).__name__} can't take an example of {inputs} numbers: {message}; a network maps one"
            " example [n_in] to features"
        ) from None
    return found.shape[-1]


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
    def create(cls, n_in: int, hidden: Sequence[int], n_out: int, key: Key[Array, ""]) -> "GaussianLayer":
        """The paper's layer, on a tanh network: every linear layer is drawn independently, the two heads too."""
        keys = jax.random.split(key, 3)
        return cls._with_heads(TanhNetwork.create((n_in, *hidden), keys[0]), (n_in, *hidden)[-1], n_out, keys[1:])

    @classmethod
    def on(cls, network: Network, units: int, *, inputs: int, key: Key[Array, ""]) -> "GaussianLayer":
        """A layer of `units` on any network that takes `inputs` numbers. Raises as `count_features` does."""
        return cls._with_heads(network, count_features(network, inputs), units, jax.random.split(key))

    @classmethod
    def _with_heads(cls, network: Network, count: int, units: int, keys: Key[Array, " two"]) -> "GaussianLayer":
        return cls(network, Linear.create(count, units, keys[0]), Linear.create(count, units, keys[1]))

    @property
    def units(self) -> int:
        """Number of units of the distribution."""
        return self.mean.bias.shape[-1]

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
    def create(cls, n_in: int, hidden: Sequence[int], n_out: int, key: Key[Array, ""]) -> "BernoulliLayer":
        """On a tanh network; every linear layer is drawn independently."""
        sizes = (n_in, *hidden)
        keys = jax.random.split(key)
        return cls(TanhNetwork.create(sizes, keys[0]), Linear.create(sizes[-1], n_out, keys[1]))

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
