"""Models and texts for the tests of the explorer's page."""

from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from iwae import HierarchicalVAE
from iwae.data import Dataset
from iwae.models.architecture import Architecture
from iwae.models.likelihoods import Likelihood

OpenModel = Callable[[HierarchicalVAE, Dataset], Path]

HOSTILE = [
    "</script><script>hacked = 1</script>",
    "<!-- <script>",
    "]]>&amp;<img src=x onerror=hacked=1>",
    "\"'><svg onload=hacked=1>",
    "$data ${title} %s {0}",
    "a\u2028b\u2029c\x00\x1b[31m",
    "caf\udce9",
]


def rough_model(architecture: Architecture, likelihood: Likelihood | None = None) -> HierarchicalVAE:
    """Random weights large enough for unequal importance weights, a prior of binary units away from one half."""
    rng = np.random.default_rng(architecture.num_layers)
    model = HierarchicalVAE.create(architecture, jax.random.key(1), likelihood)
    model = jax.tree.map(lambda a: a + 0.3 * rng.normal(size=a.shape).astype(np.float32), model)
    if architecture.kinds[-1] == "bernoulli":
        model = eqx.tree_at(lambda m: m.prior.logits, model, jnp.linspace(-2.0, 2.0, model.latent[-1]))
    return model
