"""Matrix products alone, by NumPy and by PyTorch."""

from collections.abc import Callable

import numpy as np

# Rows, what is summed over, and columns: [rows, inner] @ [inner, columns].
Product = tuple[int, int, int]


def _arrays(shapes: list[Product]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.normal(size=(rows, columns)).astype(np.float32)

    return [(matrix(m, k), matrix(k, n), np.empty((m, n), np.float32)) for m, k, n in shapes]


def by_numpy(shapes: list[Product], repeats: int = 1) -> Callable[[int], None]:
    """Runs all the products `repeats` times as often as it is told, into memory that is there."""
    arrays = _arrays(shapes)

    def run(times: int) -> None:
        for _ in range(times * repeats):
            for a, b, out in arrays:
                np.matmul(a, b, out=out)

    return run


def by_torch(shapes: list[Product], repeats: int = 1) -> Callable[[int], None]:
    """As `by_numpy`."""
    import torch

    tensors = [tuple(map(torch.from_numpy, three)) for three in _arrays(shapes)]

    def run(times: int) -> None:
        for _ in range(times * repeats):
            for a, b, out in tensors:
                torch.mm(a, b, out=out)

    return run
