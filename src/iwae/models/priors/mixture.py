"""A mixture as the prior of the top layer."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.models.distributions import Normal, Prior
from iwae.models.matmul import product

AT_ONCE = 1 << 22
"""Numbers in an array of rows, components and units. Of more, rows are scored block after block, and once more in the
backward pass, so that memory is bounded.
"""
SPREAD = 0.5


class Mixture(Prior):
    """sum_c pi_c p_c(h), with pi the softmax of `logits`. The parameters of `components` have an axis of components
    before that of the units: here diagonal Gaussians, all of them learned.
    """

    components: Any
    logits: Float[Array, " components"]

    @classmethod
    def create(cls, units: int, inputs: int, key: Key[Array, ""], *, prior_components: int) -> "Mixture":
        """Gaussians of one weight and of standard deviation 1, at places that are drawn."""
        places = SPREAD * jax.random.normal(key, (prior_components, units))
        return cls(Normal(places, jnp.zeros_like(places)), jnp.zeros(prior_components))

    def log_prob(self, value: Float[Array, "*shape units"]) -> Float[Array, "*shape"]:
        """Log density in nats, summed over units."""
        rows = value.reshape(-1, value.shape[-1])

        def of(rows: Float[Array, "rows units"]) -> Float[Array, " rows"]:
            each = self.components.log_prob(rows[:, None])
            return jax.nn.logsumexp(each + jax.nn.log_softmax(self.logits), axis=-1)

        most = max(1, AT_ONCE // (len(self.logits) * rows.shape[1]))
        if len(rows) <= most:
            return of(rows).reshape(value.shape[:-1])
        found = jax.lax.map(jax.checkpoint(lambda row: of(row[None])[0]), rows, batch_size=most)
        return found.reshape(value.shape[:-1])

    def noise_width(self, units: int) -> int:
        """One more than the units: it says which component is drawn."""
        return units + 1

    def sample(self, noise: Float[Array, "*shape width"]) -> Float[Array, "*shape units"]:
        """A draw made from standard normal `noise`, `noise_width` numbers."""
        ends = jnp.cumsum(jax.nn.softmax(self.logits))
        uniform = jax.scipy.special.ndtr(noise[..., -1:])
        chosen = jnp.minimum(jnp.sum(ends <= uniform, axis=-1), len(ends) - 1)
        return self.components.at(chosen).sample(noise[..., :-1])

    def resting(self, units: int) -> Float[Array, " units"]:
        """The mean: where units are left when others are moved."""
        return product(jax.nn.softmax(self.logits), self.components.mean)

    def keep(self, mask: Array) -> "Mixture":
        """The marginal of some of the units of diagonal Gaussians."""
        return Mixture(jax.tree.map(lambda leaf: leaf[:, mask], self.components), self.logits)

    @property
    def settings(self) -> dict[str, Any]:
        """The options that it was made with."""
        return {"prior_components": len(self.logits)}
