"""What every side is given: the paper's networks and images of MNIST's size."""

import jax
import numpy as np

from iwae.models.architecture import Architecture
from iwae.models.likelihoods import BernoulliLikelihood
from iwae.models.vae import HierarchicalVAE

BATCH = 20
NUM_EXAMPLES = 10_000
VISIBLE = 784


def example_values(rows: int = NUM_EXAMPLES, visible: int = VISIBLE) -> np.ndarray:
    """Grey values of type uint8, most of them 0 or 255 as in MNIST: what they are does not change what steps cost."""
    return (np.random.default_rng(0).integers(0, 256, (rows, visible), np.uint8) < 33) * np.uint8(255)


def paper_model(num_layers: int) -> HierarchicalVAE:
    """The paper's network with 1 or 2 stochastic layers, untrained."""
    likelihood = BernoulliLikelihood(1 / 255)
    bias = likelihood.initial_bias(example_values())
    return HierarchicalVAE.create(Architecture.paper(num_layers, VISIBLE), jax.random.key(0), likelihood, bias)
