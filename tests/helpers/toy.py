"""Small datasets for tests, made on the spot."""

import numpy as np

from iwae.data import DataFile, Dataset


def toy_dataset(
    *, train: int = 60, valid: int = 10, test: int = 12, dim: int = 6, binary: bool = False, seed: int = 0
) -> Dataset:
    """Grey values (or bits) with structure: every row is near one of three prototypes."""
    rng = np.random.default_rng(seed)
    prototypes = rng.integers(0, 256, size=(3, dim))

    def draw(count: int) -> np.ndarray:
        values = np.clip(prototypes[rng.integers(0, 3, size=count)] + rng.normal(scale=30, size=(count, dim)), 0, 255)
        return (values > 127).astype(np.uint8) if binary else values.astype(np.uint8)

    return Dataset(
        name="toy",
        train=draw(train),
        valid=draw(valid),
        test=draw(test),
        scale=1.0 if binary else 1 / 255,
        binary=binary,
        image_shape=None,
        files=(DataFile("toy", "sha256:00", None),),
    )
