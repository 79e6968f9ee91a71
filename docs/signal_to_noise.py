"""Draws docs/signal_to_noise.png: the gradients' signal-to-noise ratio over k on the model of Rainforth et al. (2018).

p(z) = N(mu, I), p(x | z) = N(z, I) and q(z | x) = N(A x + b, 2/3 I) in 20 dimensions, every parameter moved from its
optimum by noise of standard deviation 0.01. Run it as: python docs/signal_to_noise.py
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from iwae.estimators.objective import Objective
from iwae.evaluation.gradient_quality import EstimatorQuality, gradient_quality
from iwae.models.layers import GaussianLayer
from iwae.models.networks.base import Linear
from iwae.models.networks.tanh import TanhNetwork
from iwae.models.vae import HierarchicalVAE
from iwae.runs.diagnose import signal_to_noise_chart

DIM = 20
WORDS = ("iwae", "iwae:stl", "iwae:dreg", "rws:rws-dreg")
K = (1, 3, 10, 30, 100, 300, 1000)


def gaussian(gain: float, offset: float, variance: float) -> GaussianLayer:
    """N(gain * input + offset, variance I), as a layer without hidden units."""
    head = Linear(gain * jnp.eye(DIM), jnp.full(DIM, offset))
    return GaussianLayer(TanhNetwork(()), head, Linear(jnp.zeros((DIM, DIM)), jnp.full(DIM, 0.5 * jnp.log(variance))))


def near_the_optimum(seed: int = 0) -> HierarchicalVAE:
    """The model, its parameters a little off; mu, here the decoder's offset, is 0 at the optimum."""
    model = HierarchicalVAE((gaussian(0.5, 0.0, 2 / 3),), (gaussian(1.0, 0.0, 1.0),))
    leaves, structure = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [leaf + 0.01 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def measure(draws: int = 20_000, ks: tuple[int, ...] = K) -> tuple[list[str], list[EstimatorQuality]]:
    """The estimators' words and figures, k by k, at one data point drawn from the model."""
    x = jnp.sqrt(2.0) * jax.random.normal(jax.random.key(1), (1, DIM))
    words = [word for word in WORDS for k in ks if word != "rws:rws-dreg" or k > 1]
    objectives = [Objective.parse(word, k) for word in WORDS for k in ks if word != "rws:rws-dreg" or k > 1]
    return words, gradient_quality(near_the_optimum(), x, objectives, draws=draws, reference_k=max(ks))


if __name__ == "__main__":
    chart = signal_to_noise_chart(*measure())
    (Path(__file__).parent / "signal_to_noise.png").write_bytes(chart)
