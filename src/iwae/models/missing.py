"""How values go missing, where that depends on them: p(s | x) beside p(x | h)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from iwae.models.distributions import Distribution, total

NODES = 16


class SelfMasking(eqx.Module):
    """not-MIWAE (Ipsen, Mattei & Frellsen 2021) with self-masking: a value x_j is missing with the probability
    sigmoid(slope_j x_j + intercept_j), of prepared values, whatever the others are.

    p(x_obs, s | h) needs the integral of sigmoid over p(x_j | h) for every value that is missing. The paper draws one
    x_j for each sample of h; here it is taken by Gauss-Hermite quadrature over the noise that draws are made from,
    which adds no noise to the weights.
    """

    slope: Float[Array, " visible"]
    intercept: Float[Array, " visible"]

    @classmethod
    def create(cls, visible: int) -> "SelfMasking":
        """Values that go missing half of the time, whatever they are: the data say the rest."""
        return cls(jnp.zeros(visible), jnp.zeros(visible))

    def log_prob(self, x: Float[Array, "batch visible"], given: Distribution) -> Float[Array, "*k batch"]:
        """log p(s | x_obs, h) in nats, for x with NaN where a value is missing and p(x | h)."""
        observed = ~jnp.isnan(x)
        values, log_shares = self._nodes(given)
        of_missing = jax.nn.logsumexp(log_shares + self._log_missing(values), axis=0)
        of_observed = jax.nn.log_sigmoid(-(self.slope * jnp.where(observed, x, 0.0) + self.intercept))
        return total(jnp.where(observed, of_observed, of_missing))

    def mean(self, given: Distribution) -> Float[Array, "*k batch visible"]:
        """The mean of every value under p(x | h) if it is missing, of prepared values."""
        values, log_shares = self._nodes(given)
        return jnp.sum(jax.nn.softmax(log_shares + self._log_missing(values), axis=0) * values, axis=0)

    def sample(
        self, given: Distribution, noise: Float[Array, "candidates *k visible"], choice: Float[Array, "*k visible"]
    ) -> Float[Array, "*k visible"]:
        """A draw of every value under p(x | h) if it is missing: one of the candidates that standard normal `noise`
        gives, by its probability of being missing. `choice` is uniform.
        """
        values = given.sample(noise)
        cumulative = jnp.cumsum(jax.nn.softmax(self._log_missing(values), axis=0), axis=0)
        place = jnp.minimum(jnp.sum(cumulative < choice, axis=0), len(values) - 1)
        return jnp.take_along_axis(values, place[None], axis=0)[0]

    def _log_missing(self, values: Float[Array, "*more visible"]) -> Float[Array, "*more visible"]:
        return jax.nn.log_sigmoid(self.slope * values + self.intercept)

    def _nodes(self, given: Distribution) -> tuple[Float[Array, "nodes *rows visible"], Array]:
        """Values at the nodes, and the logs of their shares."""
        nodes, shares = np.polynomial.hermite_e.hermegauss(NODES)
        shape = (NODES, *(1 for _ in given.mean.shape))
        noise = jnp.broadcast_to(jnp.asarray(nodes, jnp.float32).reshape(shape), (NODES, *given.mean.shape))
        return given.sample(noise), jnp.log(jnp.asarray(shares / shares.sum(), jnp.float32)).reshape(shape)
