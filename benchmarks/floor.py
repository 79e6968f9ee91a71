"""The matrix products of a step alone, by the faster of NumPy's and PyTorch's."""

from collections.abc import Callable

import numpy as np
import torch

from iwae.model import HierarchicalVAE
from iwae.networks import GaussianLayer, Linear

# Rows, columns and what is summed over: [rows, inner] @ [inner, columns].
Product = tuple[int, int, int]


def layers(model: HierarchicalVAE, num_samples: int, batch: int) -> list[tuple[int, Linear, bool]]:
    """Each linear layer with the rows that it is applied to, and whether it sees the data, whose gradient nobody
    needs.
    """
    found = []
    for number, layer in enumerate([*model.encoder, *model.decoder]):
        rows = batch if number == 0 else num_samples * batch
        heads = (layer.mean, layer.log_sigma) if isinstance(layer, GaussianLayer) else (layer.logits,)
        linears = [*layer.hidden, *heads]
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


def operations(shapes: list[Product]) -> int:
    """Floating-point operations, a product and a sum counted as two."""
    return sum(2 * rows * inner * columns for rows, inner, columns in shapes)


def runners(shapes: list[Product]) -> dict[str, Callable[[int], None]]:
    """By NumPy and by PyTorch: runs all the products that many times, into memory that is there."""
    rng = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.normal(size=(rows, columns)).astype(np.float32)

    arrays = [(matrix(m, k), matrix(k, n), np.empty((m, n), np.float32)) for m, k, n in shapes]
    tensors = [tuple(map(torch.from_numpy, three)) for three in arrays]

    def by_numpy(times: int) -> None:
        for _ in range(times):
            for a, b, out in arrays:
                np.matmul(a, b, out=out)

    def by_torch(times: int) -> None:
        for _ in range(times):
            for a, b, out in tensors:
                torch.mm(a, b, out=out)

    return {"floor, NumPy": by_numpy, "floor, PyTorch": by_torch}
