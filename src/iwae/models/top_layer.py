"""The top layer h_L, as pictures and pages move its units: where they rest, and how far they go."""

import numpy as np

from iwae.models.distributions import Bernoulli
from iwae.models.vae import HierarchicalVAE


def resting_values(model: HierarchicalVAE) -> np.ndarray:
    """The prior's mean, float32 `[units]`: zeros, or a Bernoulli prior's probabilities."""
    if isinstance(model.prior, Bernoulli):
        return np.asarray(model.prior.mean, np.float32)
    return np.zeros(model.latent[-1], np.float32)


def is_binary(model: HierarchicalVAE) -> bool:
    """Whether the top layer's units are zeros and ones."""
    return isinstance(model.prior, Bernoulli)
