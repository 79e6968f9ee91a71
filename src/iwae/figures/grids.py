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


def shades(*arrays: np.ndarray) -> list[np.ndarray]:
    """uint8, black to white, of arrays that are shown beside each other: of values in [0, 1], else of values in
    [0, 255], else between the least and the greatest of all. What is missing (NaN) is a zero.
    """
    arrays = tuple(map(np.nan_to_num, arrays))
    low, high = (float(find([find(array) for array in arrays])) for find in (np.min, np.max))
    low, high = (0.0, 1.0 if high <= 1.0 else 255.0) if low >= 0.0 and high <= 255.0 else (low, high)
    return [np.round((array - low) / ((high - low) or 1.0) * 255).astype(np.uint8) for array in arrays]


def diverging(values: np.ndarray) -> np.ndarray:
    """uint8 rows of `PALETTE`: blue below zero, white at zero, red above. Full colour is reached at the 99.8th
    percentile of the absolute values, so that a few large ones don't hide the others.
    """
    limit = float(np.percentile(np.abs(values), 99.8)) if values.size else 1.0
    scaled = np.clip(values / (limit or 1.0), -1.0, 1.0)
    return (LEVELS + np.round(scaled * LEVELS)).astype(np.uint8)


def tile(cells: np.ndarray, columns: int, *, group_rows: int = 1, ground: int = GROUND) -> np.ndarray:
    """uint8 cells `[n, height, width]`, or `[n, height, width, 3]`, in rows of `columns`, on a ground of one value.

    Small cells are enlarged by a whole factor. With `group_rows`, that many rows stand together, with a wider gap
    after them. A last row that is not full is left empty at its end.
    """
    cells = _enlarged(cells)
    rows = math.ceil(len(cells) / columns)
    height, width = cells.shape[1:3]
    gap = GROUP_GAP if group_rows > 1 else 0
    total = rows * (height + MARGIN) + MARGIN + gap * ((rows - 1) // group_rows)
    canvas = np.full((total, columns * (width + MARGIN) + MARGIN, *cells.shape[3:]), ground, np.uint8)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        top = MARGIN + row * (height + MARGIN) + gap * (row // group_rows)
        left = MARGIN + column * (width + MARGIN)
        canvas[top : top + height, left : left + width] = cell
    return canvas


def _enlarged(cells: np.ndarray) -> np.ndarray:
    factor = max(1, math.ceil(CELL / max(cells.shape[1:3])))
    return cells.repeat(factor, axis=1).repeat(factor, axis=2)


def _thinned(cells: np.ndarray, columns: int) -> np.ndarray:
    """Every so many-th pixel, where a row of cells would be wider than `MAX_SIDE`."""
    step = max(1, math.ceil(max(cells.shape[1:3]) * columns / MAX_SIDE))
    return cells[:, ::step, ::step]


def sample_grid(values: np.ndarray, image_shape: tuple[int, ...] | None) -> bytes:
    """A PNG of `values`, `[n, visible]`, as `shades` takes them, as a near-square grid of images.

    Vectors that are not images become one picture with a row for each.
    """
    (cells,) = shades(values)
    if image_shape is None:
        return png(Image.fromarray(_enlarged(cells[None])[0]))
    cells = cells.reshape(-1, *image_shape)
    return png(Image.fromarray(tile(cells, math.ceil(math.sqrt(len(cells))))))


def reconstruction_grid(
    originals: np.ndarray, decoded: np.ndarray, image_shape: tuple[int, ...], *, columns: int = 10
) -> bytes:
    """A PNG of pairs of rows: originals above what was decoded, both `[n, visible]`, as `shades` takes them."""
    columns = min(columns, len(originals))
    rows = len(originals) // columns
    count = rows * columns
    pairs = np.stack([part.reshape(rows, -1) for part in shades(originals[:count], decoded[:count])], axis=1)
    return png(Image.fromarray(tile(_thinned(pairs.reshape(-1, *image_shape), columns), columns, group_rows=2)))


def weight_grid(weights: np.ndarray, image_shape: tuple[int, ...]) -> bytes:
    """A PNG of weights `[units, visible]` as images, near square, all on one scale of colours."""
    columns = math.ceil(math.sqrt(len(weights)))
    cells = _thinned(diverging(weights).reshape(-1, *image_shape), columns)
    picture = Image.fromarray(tile(cells, columns, ground=len(PALETTE) - 1))
    picture.putpalette(PALETTE.tobytes())
    return png(picture)
