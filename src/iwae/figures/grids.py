"""A grid of images as a PNG, which runs and reports share."""

import io
import math

import numpy as np
from PIL import Image

MARGIN = 2
MIN_CELL = 56


def sample_grid(values: np.ndarray, image_shape: tuple[int, int] | None) -> bytes:
    """A PNG of `values`, `[n, visible]` in [0, 1], black to white, as a near-square grid of images.

    Small images are enlarged by a whole factor. Vectors that are no images become one picture with a row each.
    """
    if image_shape is None:
        return _png(_enlarge(values))
    columns = math.ceil(math.sqrt(len(values)))
    rows = math.ceil(len(values) / columns)
    cells = [_enlarge(value.reshape(image_shape)) for value in values]
    height, width = cells[0].shape
    canvas = np.full((rows * (height + MARGIN) + MARGIN, columns * (width + MARGIN) + MARGIN), 0.35)
    for index, cell in enumerate(cells):
        top = MARGIN + (index // columns) * (height + MARGIN)
        left = MARGIN + (index % columns) * (width + MARGIN)
        canvas[top : top + height, left : left + width] = cell
    return _png(canvas)


def _enlarge(image: np.ndarray) -> np.ndarray:
    factor = max(1, math.ceil(MIN_CELL / max(image.shape)))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.round(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()
