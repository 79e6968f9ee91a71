"""The gradients' signal-to-noise ratio over k on the model of Rainforth et al. (2018), and its picture.

p(z) = N(mu, I), p(x | z) = N(z, I) and q(z | x) = N(A x + b, 2/3 I) in 20 dimensions, every parameter moved from its
optimum by noise of standard deviation 0.01. With the argument `all` it draws the documentation's figure.
"""

import sys
from pathlib import Path

import jax
import jax.flatten_util
import jax.numpy as jnp

import iwae
from iwae.evaluation.gradient_quality import gradient_quality
from iwae.models.networks.base import Linear
from iwae.runs.diagnose import signal_to_noise_chart

DIM, K = 20, (1, 3, 10, 30, 100, 300, 1000)
WORDS = ("iwae", "iwae:stl", "iwae:dreg", "rws:rws-dreg")


def gaussian(gain: float, offset: float, variance: float) -> iwae.GaussianLayer:
    """N(gain * input + offset, variance I)."""
    head = Linear(gain * jnp.eye(DIM), jnp.full(DIM, offset))
    log_sigma = Linear(jnp.zeros((DIM, DIM)), jnp.full(DIM, 0.5 * jnp.log(variance)))
    return iwae.GaussianLayer(iwae.TanhNetwork(()), head, log_sigma)


def near_the_optimum(seed: int = 0) -> iwae.HierarchicalVAE:
    """The model; mu, here the decoder's offset, is 0 at the optimum."""
    model = iwae.HierarchicalVAE((gaussian(0.5, 0.0, 2 / 3),), (gaussian(1.0, 0.0, 1.0),))
    flat, unravel = jax.flatten_util.ravel_pytree(model)
    return unravel(flat + 0.01 * jax.random.normal(jax.random.key(seed), flat.shape))


def measure(draws: int, ks: tuple[int, ...], words: tuple[str, ...] = WORDS) -> tuple[list[str], list]:
    """The estimators' words and figures, k by k, at one data point drawn from the model."""
    model, x = near_the_optimum(), jnp.sqrt(2.0) * jax.random.normal(jax.random.key(1), (1, DIM))
    cells = [(word, k) for word in words for k in ks if word != "rws:rws-dreg" or k > 1]
    objectives = [iwae.Objective.parse(*cell) for cell in cells]
    return [word for word, _ in cells], gradient_quality(model, x, objectives, draws=draws, reference_k=max(ks))


if __name__ == "__main__":
    words, found = measure(20_000, K) if "all" in sys.argv else measure(1000, (3, 100))
    for word, own in zip(words, found, strict=True):
        print(word, f"k={own.objective.k}:", own.encoder.signal_to_noise, own.decoder.signal_to_noise)
    Path("signal_to_noise.png").write_bytes(signal_to_noise_chart(words, found))
