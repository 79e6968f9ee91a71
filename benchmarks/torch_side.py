"""The same model, bound and optimizer as a good PyTorch user would write them."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.setting import BATCH, example_values, paper_model
from iwae.models.networks.base import Linear
from iwae.models.vae import HierarchicalVAE
from iwae.training.optim import PAPER_BETA1, PAPER_BETA2, PAPER_EPSILON

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def linear(ours: Linear) -> nn.Linear:
    """The same weights; PyTorch keeps them as `[out, in]`."""
    theirs = nn.Linear(*ours.weight.shape)
    with torch.no_grad():
        theirs.weight.copy_(torch.from_numpy(np.array(ours.weight.T)))
        theirs.bias.copy_(torch.from_numpy(np.array(ours.bias)))
    return theirs


def tanh_network(hidden: tuple[Linear, ...]) -> nn.Sequential:
    """The tanh layers below a distribution's heads."""
    return nn.Sequential(*(module for layer in hidden for module in (linear(layer), nn.Tanh())))


class Gaussian(nn.Module):
    """Mean and log sigma of a diagonal Gaussian."""

    def __init__(self, ours: Any):
        super().__init__()
        self.hidden = tanh_network(ours.network.hidden)
        self.mean, self.log_sigma = linear(ours.mean), linear(ours.log_sigma)

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        features = self.hidden(value)
        return self.mean(features), self.log_sigma(features)


class TorchIWAE(nn.Module):
    """A copy of one of our models with Gaussian latents."""

    def __init__(self, ours: HierarchicalVAE):
        super().__init__()
        self.encoder = nn.ModuleList(Gaussian(layer) for layer in ours.encoder)
        self.decoder = nn.ModuleList(Gaussian(layer) for layer in ours.decoder[1:])
        visible = ours.decoder[0]
        self.visible = nn.Sequential(tanh_network(visible.network.hidden), linear(visible.outputs))
        self.latent = ours.latent

    def noise(self, num_samples: int, batch: int) -> list[Tensor]:
        """Standard normal noise `[k, batch, units]` for each stochastic layer."""
        device = next(self.parameters()).device
        return [torch.randn(num_samples, batch, units, device=device) for units in self.latent]

    def log_weights(self, x: Tensor, noise: list[Tensor]) -> Tensor:
        """log p(x, h) - log q(h | x), `[k, batch]`; q(h_1 | x) once per example."""
        below, latents = x, []
        total = torch.zeros((), device=x.device)
        for layer, eps in zip(self.encoder, noise, strict=True):
            mean, log_sigma = layer(below)
            below = mean + torch.exp(log_sigma) * eps
            latents.append(below)
            total = total + (0.5 * eps.square() + log_sigma + HALF_LOG_TWO_PI).sum(-1)
        total = total - (0.5 * latents[-1].square() + HALF_LOG_TWO_PI).sum(-1)
        for layer, above, value in zip(self.decoder, latents[1:], latents, strict=False):
            mean, log_sigma = layer(above)
            standardized = (value - mean) * torch.exp(-log_sigma)
            total = total - (0.5 * standardized.square() + log_sigma + HALF_LOG_TWO_PI).sum(-1)
        logits = self.visible(latents[0]).float()
        cross_entropy = functional.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
        return total.float() - cross_entropy.sum(-1)

    def bound(self, x: Tensor, noise: list[Tensor]) -> Tensor:
        """L_k of each example."""
        return torch.logsumexp(self.log_weights(x, noise), 0) - math.log(len(noise[0]))


def trainer(
    num_layers: int, num_samples: int, compiled: bool, bfloat16: bool, device: str = "cpu", graph: bool = False
) -> Callable[[int], None]:
    """Runs that many training steps on the example values, in order. With `graph` a step is one CUDA graph, which is
    replayed.
    """
    model = TorchIWAE(paper_model(num_layers)).to(device)
    data = torch.from_numpy(example_values().astype(np.float32) / 255.0).to(device)
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=1e-3,
        betas=(PAPER_BETA1, PAPER_BETA2),
        eps=PAPER_EPSILON,
        fused=True,
        capturable=graph,
    )

    def loss(rows: Tensor) -> Tensor:
        x = (torch.rand(rows.shape, device=device) < rows).float()
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            return -model.bound(x, model.noise(num_samples, BATCH)).sum()

    objective = torch.compile(loss) if compiled else loss

    def step(rows: Tensor) -> None:
        optimizer.zero_grad()
        objective(rows).backward()
        optimizer.step()

    take = _replayed(step, data[:BATCH].clone()) if graph else step
    batches = len(data) // BATCH
    done = 0

    def run(steps: int) -> None:
        nonlocal done
        for _ in range(steps):
            start = done % batches * BATCH
            take(data[start : start + BATCH])
            done += 1
        if device != "cpu":
            torch.cuda.synchronize()

    return run


def _replayed(step: Callable[[Tensor], None], rows: Tensor) -> Callable[[Tensor], None]:
    """The step as one CUDA graph of `rows`' shape: what is given is copied into them, and the graph replayed."""
    # Kernels are chosen and memory is taken before the capture, on a stream of its own, as PyTorch asks.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(rows)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(rows)

    def replay(given: Tensor) -> None:
        rows.copy_(given)
        graph.replay()

    return replay


def ways() -> dict[str, tuple[bool, bool, str, bool]]:
    """The ways to train that this device knows: the arguments of `trainer` after the cell's."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = {
        "PyTorch eager": (False, False, device, False),
        "PyTorch compiled": (True, False, device, False),
        "PyTorch CUDA graph": (False, False, device, True),
    }
    if device == "cpu":
        del found["PyTorch CUDA graph"]
    return found


def measurer(num_layers: int, num_samples: int, examples: int, samples_at_once: int) -> Callable[[int], None]:
    """Measures L_k of that many groups of `examples` examples, by a running log-sum-exp."""
    model = TorchIWAE(paper_model(num_layers))
    rows = torch.from_numpy((example_values()[:examples] > 0).astype(np.float32))

    @torch.no_grad()
    def run(groups: int) -> None:
        for _ in range(groups):
            total = torch.full((examples,), -math.inf)
            for _ in range(num_samples // samples_at_once):
                log_weights = model.log_weights(rows, model.noise(samples_at_once, examples))
                total = torch.logaddexp(total, torch.logsumexp(log_weights, 0))

    return run


def check_same_bound(num_layers: int, num_samples: int) -> float:
    """The largest relative difference of L_k of any example between the two, from the same weights and noise."""
    ours, x = paper_model(num_layers), (example_values()[:BATCH] > 0).astype(np.float32)
    noise = ours.draw_noise(jax.random.key(1), num_samples, len(x))
    log_weights = np.asarray(ours.log_weights_at(jax.numpy.asarray(x), noise), np.float64)
    expected = np.logaddexp.reduce(log_weights, axis=0) - math.log(num_samples)
    with torch.no_grad():
        theirs = TorchIWAE(ours).bound(torch.from_numpy(x), [torch.from_numpy(np.array(n)) for n in noise])
    return float(np.max(np.abs(theirs.numpy() / expected - 1.0)))
