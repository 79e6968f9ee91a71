"""Vectors as PNG pictures that a page can hold: images as they are, other vectors as a strip of bars."""

import base64
import io

import numpy as np
from PIL import Image

STRIP_HEIGHT = 48
BAR_COLOR = (63, 131, 216)


def picture(values: np.ndarray, image_shape: tuple[int, int] | None) -> bytes:
    """A PNG of `[visible]` values in [0, 1]: an image from black to white, a pixel for each.

    A vector that is no image becomes a strip of bars, one column for each value, 48 pixels high at a value of one,
    on nothing: the page's own background, light or dark.
    """
    values = np.clip(np.nan_to_num(np.asarray(values, np.float64)), 0.0, 1.0)
    image = _grey(values.reshape(image_shape)) if image_shape else _bars(values)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def _grey(values: np.ndarray) -> np.ndarray:
    return np.round(values * 255).astype(np.uint8)


def _bars(values: np.ndarray) -> np.ndarray:
    """`[48, visible, 4]`: each column opaque from the bottom up to the value, its last pixel by the fraction."""
    below = np.arange(STRIP_HEIGHT)[::-1, None]
    opacity = _grey(np.clip(values * STRIP_HEIGHT - below, 0.0, 1.0))
    color = np.broadcast_to(np.array(BAR_COLOR, np.uint8), (*opacity.shape, 3))
    return np.dstack([color, opacity])


def data_uri(png: bytes) -> str:
    """The picture as an address that an `<img>` takes, so that no second request is needed."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
