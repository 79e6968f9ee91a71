"""Grids of images as PNG: samples, reconstructions, weights. NumPy and Pillow only."""

import io
import math
from typing import Any

import numpy as np
from PIL import Image

MARGIN = 2
GROUP_GAP = 8
CELL = 56
MAX_SIDE = 1400
GROUND = 89
# Blue, white, red: told apart with every common form of colour blindness, and by lightness from the middle.
NEGATIVE, ZERO, POSITIVE = (5, 80, 160), (247, 247, 247), (178, 24, 43)
# Levels on either side of zero; few enough for a small file. The ground between cells is the last colour.
LEVELS = 24
PALETTE = np.concatenate(
    [np.linspace(NEGATIVE, ZERO, LEVELS + 1), np.linspace(ZERO, POSITIVE, LEVELS + 1)[1:], [(GROUND,) * 3]]
).astype(np.uint8)


def png(image: Image.Image, **settings: Any) -> bytes:
    """A picture as a small PNG; `settings` are Pillow's for that format."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True, **settings)
    return buffer.getvalue()


def grey(values: np.ndarray) -> np.ndarray:
    """uint8 of values in [0, 1], black to white."""
    return np.round(np.clip(values, 0.0, 1.0) * 255).astype(np.uint8)


def diverging(values: np.ndarray) -> np.ndarray:
    """uint8 rows of `PALETTE`: blue below zero, white at zero, red above. Full colour is reached at the 99.8th
    percentile of the absolute values, so that a few large ones don't hide the others.
    """
    limit = float(np.percentile(np.abs(values), 99.8)) if values.size else 1.0
    scaled = np.clip(values / (limit or 1.0), -1.0, 1.0)
    return (LEVELS + np.round(scaled * LEVELS)).astype(np.uint8)


def tile(cells: np.ndarray, columns: int, *, group_rows: int = 1, ground: int = GROUND) -> np.ndarray:
    """uint8 cells `[n, height, width]` in rows of `columns`, on a ground of one value.

    Small cells are enlarged by a whole factor. With `group_rows`, that many rows stand together, with a wider gap
    after them. A last row that is not full is left empty at its end.
    """
    cells = _enlarged(cells)
    rows = math.ceil(len(cells) / columns)
    height, width = cells.shape[1:]
    gap = GROUP_GAP if group_rows > 1 else 0
    total = rows * (height + MARGIN) + MARGIN + gap * ((rows - 1) // group_rows)
    canvas = np.full((total, columns * (width + MARGIN) + MARGIN), ground, np.uint8)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        top = MARGIN + row * (height + MARGIN) + gap * (row // group_rows)
        left = MARGIN + column * (width + MARGIN)
        canvas[top : top + height, left : left + width] = cell
    return canvas


def _enlarged(cells: np.ndarray) -> np.ndarray:
    factor = max(1, math.ceil(CELL / max(cells.shape[1:])))
    return cells.repeat(factor, axis=1).repeat(factor, axis=2)


def _thinned(cells: np.ndarray, columns: int) -> np.ndarray:
    """Every so many-th pixel, where a row of cells would be wider than `MAX_SIDE`."""
    step = max(1, math.ceil(max(cells.shape[1:]) * columns / MAX_SIDE))
    return cells[:, ::step, ::step]


def sample_grid(values: np.ndarray, image_shape: tuple[int, int] | None) -> bytes:
    """A PNG of `values`, `[n, visible]` in [0, 1], black to white, as a near-square grid of images.

    Vectors that are not images become one picture with a row for each.
    """
    if image_shape is None:
        return png(Image.fromarray(_enlarged(grey(values)[None])[0]))
    cells = grey(values).reshape(-1, *image_shape)
    return png(Image.fromarray(tile(cells, math.ceil(math.sqrt(len(cells))))))


def reconstruction_grid(
    originals: np.ndarray, decoded: np.ndarray, image_shape: tuple[int, int], *, columns: int = 10
) -> bytes:
    """A PNG of pairs of rows: originals above what was decoded, both `[n, visible]` in [0, 1]."""
    columns = min(columns, len(originals))
    rows = len(originals) // columns
    pairs = np.stack([grey(values[: rows * columns]).reshape(rows, -1) for values in (originals, decoded)], axis=1)
    return png(Image.fromarray(tile(_thinned(pairs.reshape(-1, *image_shape), columns), columns, group_rows=2)))


def weight_grid(weights: np.ndarray, image_shape: tuple[int, int]) -> bytes:
    """A PNG of weights `[units, visible]` as images, near square, all on one scale of colours."""
    columns = math.ceil(math.sqrt(len(weights)))
    cells = _thinned(diverging(weights).reshape(-1, *image_shape), columns)
    picture = Image.fromarray(tile(cells, columns, ground=len(PALETTE) - 1))
    picture.putpalette(PALETTE.tobytes())
    return png(picture)
