"""The VR-IWAE bound's signal-to-noise ratio and bias over N (Daudel, Benton, Shi & Doucet 2023), and their pictures.

alpha = 0 is IWAE, whose plain encoder gradient drowns in noise as N grows; with alpha in (0, 1) the ratio grows. The
bound lacks gamma^2 / (2 N) of its limit, gamma^2 being the relative variance of w^(1 - alpha) over 1 - alpha.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from signal_to_noise import DIM, gaussian, measure

import iwae
from iwae.figures.charts import Line, estimator_chart
from iwae.runs.diagnose import signal_to_noise_chart

ALPHAS, OFFSET = (0.0, 0.5), 0.1


def log_moment(power: float) -> float:
    """log E_q[(p(z | x) / q(z | x))^power] of Gaussians of variance 1/2 and 2/3 whose means are OFFSET apart."""
    mixed = (1 - power) / 2 + power * 2 / 3
    scales = (1 - power) * np.log(1 / 2) + power * np.log(2 / 3) - np.log(mixed)
    return 0.5 * DIM * (scales - power * (1 - power) * OFFSET**2 / mixed)


def biases(alpha: float, ns: tuple[int, ...], draws: int) -> list[Line]:
    """What the bound lacks, as measured, and gamma^2 / (2 N)."""
    model, power = iwae.HierarchicalVAE((gaussian(0.5, OFFSET, 2 / 3),), (gaussian(1.0, 0.0, 1.0),)), 1 - alpha
    limit = -0.5 * DIM * np.log(4 * np.pi) + log_moment(power) / power
    weights = [model.log_weights(jnp.zeros((draws, DIM)), jax.random.key(n), n) for n in ns]
    lacking = [limit - float(iwae.bounds.renyi(w, alpha).mean()) for w in weights]
    expected = np.expm1(log_moment(2 * power) - 2 * log_moment(power)) / power / 2 / np.array(ns)
    values = {f"alpha = {alpha:g}": lacking, f"alpha = {alpha:g}, 1/N": list(expected)}
    return [Line(name, ns, found, [True] * len(ns)) for name, found in values.items()]


if __name__ == "__main__":
    draws, ns = (20_000, (1, 3, 10, 30, 100, 300)) if "all" in sys.argv else (2000, (10, 100))
    words, found = measure(draws, ns, tuple(f"renyi:alpha={alpha:g}" for alpha in ALPHAS))
    for word, own in zip(words, found, strict=True):
        print(word, f"k={own.objective.k}:", own.encoder.signal_to_noise)
    Path("vr_iwae_signal_to_noise.png").write_bytes(signal_to_noise_chart(words, found))
    lines = [line for alpha in ALPHAS for line in biases(alpha, ns, 10_000)]
    print(*(f"{line.name}: {value:.6f}" for line in lines for value in line.values), sep="\n")
    Path("vr_iwae_bias.png").write_bytes(estimator_chart({"VR-IWAE": ("limit less the bound (nats)", lines)}))
