"""The model by the paper's definition, in NumPy and float64, and small architectures."""

import numpy as np
from scipy import stats

from iwae.models.architecture import Architecture

BIAS = np.full(6, np.log(0.3 / 0.7), np.float32)
"""Of the visible layer's outputs: a probability of 0.3."""

SMALL = {
    1: Architecture(6, (3,), ((5, 4),)),
    2: Architecture(6, (4, 2), ((5, 4), (3, 3))),
    3: Architecture(6, (4, 3, 2), ((5, 4), (3, 3), (2, 2))),
}


def numpy_hidden(layer, x):
    for linear in layer.network.hidden:
        x = np.tanh(x @ np.asarray(linear.weight, np.float64) + np.asarray(linear.bias, np.float64))
    return x


def numpy_linear(linear, x):
    return x @ np.asarray(linear.weight, np.float64) + np.asarray(linear.bias, np.float64)


def numpy_log_weight(model, x, noise):
    """log w of one example and one sample by the paper's definition, layer by layer, in float64."""
    total, below, latents = 0.0, x, []
    for layer, epsilon in zip(model.encoder, noise, strict=True):
        features = numpy_hidden(layer, below)
        mean, sigma = numpy_linear(layer.mean, features), np.exp(numpy_linear(layer.log_sigma, features))
        below = mean + sigma * epsilon
        total -= stats.norm.logpdf(below, mean, sigma).sum()
        latents.append(below)
    total += stats.norm.logpdf(latents[-1]).sum()
    for i in range(len(latents) - 1, 0, -1):
        features = numpy_hidden(model.decoder[i], latents[i])
        mean = numpy_linear(model.decoder[i].mean, features)
        sigma = np.exp(numpy_linear(model.decoder[i].log_sigma, features))
        total += stats.norm.logpdf(latents[i - 1], mean, sigma).sum()
    logits = numpy_linear(model.decoder[0].outputs, numpy_hidden(model.decoder[0], latents[0]))
    return total + stats.bernoulli.logpmf(x.astype(int), 1 / (1 + np.exp(-logits))).sum()
