"""The variational mixture of posteriors as the prior of the top layer."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.models.distributions import Prior
from iwae.models.layers import ConditionalLayer
from iwae.models.priors.mixture import Mixture

SMALL = 0.01


class VampPrior(Prior):
    """(1/C) sum_c q(h_L | u_c), the average of what the encoder's top layer makes of learned `pseudo_inputs` u_c
    (Tomczak & Welling 2018, "VAE with a VampPrior", equation 9).

    With one stochastic layer they are inputs of the encoder; above that they are values of the layer below the top one.
    They may be any numbers, also where the data are zeros and ones.
    """

    pseudo_inputs: Float[Array, "components inputs"]

    @classmethod
    def create(cls, units: int, inputs: int, key: Key[Array, ""], *, prior_components: int) -> "VampPrior":
        """Near zero, until they are set to training rows by `starting_at`."""
        return cls(SMALL * jax.random.normal(key, (prior_components, inputs)))

    @property
    def num_codes(self) -> int:
        """Of training examples whose codes it starts from."""
        return len(self.pseudo_inputs)

    def starting_at(self, codes: Float[Array, "components inputs"]) -> "VampPrior":
        """With these pseudo-inputs."""
        return VampPrior(codes)

    def given(self, layer: ConditionalLayer) -> Mixture:
        """The mixture, for the encoder's top layer."""
        return Mixture(layer(self.pseudo_inputs), jnp.zeros(len(self.pseudo_inputs)))

    @property
    def settings(self) -> dict[str, Any]:
        """The options that it was made with."""
        return {"prior_components": len(self.pseudo_inputs)}
