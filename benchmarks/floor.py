"""The matrix products that a step can't do without."""

from typing import Any

from benchmarks.gemm import Product
from iwae.models.networks.base import Linear
from iwae.models.vae import HierarchicalVAE


def layers(model: HierarchicalVAE, num_samples: int, batch: int) -> list[tuple[int, Linear, bool]]:
    """Each linear layer with the rows that it is applied to, and whether it sees the data, whose gradient nobody
    needs.
    """
    found = []
    both: Any = [*model.encoder, *model.decoder]
    for number, layer in enumerate(both):
        rows = batch if number == 0 else num_samples * batch
        linears = [*layer.network.hidden, *layer.heads]
        found += [(rows, linear, number == 0 and place == 0) for place, linear in enumerate(linears)]
    return found


def products(model: HierarchicalVAE, num_samples: int, batch: int, *, training: bool) -> list[Product]:
    """The products of one forward pass and, for training, one backward pass."""
    found = []
    for rows, linear, sees_data in layers(model, num_samples, batch):
        n_in, n_out = linear.weight.shape
        found.append((rows, n_in, n_out))
        if training:
            found.append((n_in, rows, n_out))
            found += [] if sees_data else [(rows, n_out, n_in)]
    return found


def annealing(model: HierarchicalVAE, rows: int, gradients: int) -> list[Product]:
    """The products of so many gradients of the annealed density in the latents of `rows` chains: of log p(x, h), and of
    q(h_2 | h_1) and above. q(h_1 | x) stands still, and no weight has a gradient.
    """
    once = []
    for layer in (*model.encoder[1:], *model.decoder):
        for linear in (*layer.network.hidden, *layer.heads):  # pyright: ignore[reportAttributeAccessIssue]
            n_in, n_out = linear.weight.shape
            once += [(rows, n_in, n_out), (rows, n_out, n_in)]
    return once * gradients


def operations(shapes: list[Product]) -> int:
    """Floating-point operations, a product and a sum counted as two."""
    return sum(2 * rows * inner * columns for rows, inner, columns in shapes)
