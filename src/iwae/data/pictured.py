"""A dataset in a notebook: its first images, or its columns."""

import base64
import html
import io
from typing import Any

import numpy as np

SHOWN_IMAGES, SHOWN_COLUMNS = 10, 20
PIXELS = 56
"""Of a small image's longer side, at least."""


def pictured(dataset: Any) -> str:
    """HTML of a `Dataset`: what it is in words, and under it the first training images, or a table of the columns."""
    words = f"<p>{html.escape(repr(dataset))}</p>"
    if dataset.image_shape is not None and len(dataset.image_shape) == 2:
        content = base64.b64encode(_png(dataset.train[:SHOWN_IMAGES], dataset.image_shape)).decode()
        return f'{words}<img alt="the first training images" src="data:image/png;base64,{content}">'
    rows = [(column.name, column.kind, column.type) for column in dataset.columns[:SHOWN_COLUMNS]]
    if not rows:
        return words
    if (more := len(dataset.columns) - len(rows)) > 0:
        rows.append((f"and {more} more", "", ""))
    cells = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"{words}<table><tr><th>column</th><th>kind</th><th>values</th></tr>{cells}</table>"


def _png(rows: np.ndarray, shape: tuple[int, int]) -> bytes:
    """Images side by side, from black for the smallest value to white for the largest."""
    from PIL import Image

    values = np.nan_to_num(np.asarray(rows, np.float64)).reshape(-1, *shape)
    low, high = values.min(), values.max()
    grey = ((values - low) / max(high - low, 1e-300) * 255).astype(np.uint8)
    side_by_side = np.concatenate(np.pad(grey, ((0, 0), (0, 0), (0, 1)), constant_values=128), axis=1)
    factor = max(1, -(-PIXELS // max(shape)))
    buffer = io.BytesIO()
    Image.fromarray(side_by_side.repeat(factor, axis=0).repeat(factor, axis=1)).save(buffer, format="PNG")
    return buffer.getvalue()
