"""Pictures of an analysis, which somebody else may have made, as a page holds them."""

import base64
import io
import shlex
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from iwae.errors import IWAEError
from iwae.io.files import read_bounded
from iwae.runs.analyze import DIRECTORY, FILE

MAX_BYTES = 32 << 20
MAX_NAME = 100


@dataclass(frozen=True)
class PictureView:
    """A picture as the page shows it; `width` and `height` in pixels let the page keep its place."""

    heading: str
    caption: str
    alt: str
    uri: str
    width: int
    height: int


def picture(content: bytes, heading: str, caption: str, alt: str) -> PictureView:
    """A PNG as a data: URI. Raises ValueError, in one line, for anything else, and for one that is damaged or whose
    pixels would fill memory.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                width, height = image.size
                image.verify()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except Exception:  # Pillow raises nearly anything for a damaged file, and what it says names none.
        raise ValueError("it is not an intact PNG") from None
    uri = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return PictureView(heading, caption, alt, uri, width, height)


def picture_path(run: Path, name: str) -> Path:
    """Where a picture of a run's analysis lies. Raises IWAEError for a name that leads outside the analysis."""
    path = run / DIRECTORY / name
    if name in ("", ".", "..") or len(name) > MAX_NAME or any(character in name for character in "/\\\0"):
        raise _refusal(run, f"{run / DIRECTORY / FILE}: names {name!r:.100} as a picture beside it")
    if path.is_symlink():
        raise _refusal(run, f"{path}: is a link, not a picture")
    return path


def read_picture(run: Path, name: str, heading: str, caption: str, alt: str) -> PictureView:
    """A picture of a run's analysis, by its file's own name.

    Raises IWAEError, naming the file, for what is not a file of the analysis, not an intact PNG or too large, and
    OSError where it can't be read.
    """
    path = picture_path(run, name)
    try:
        return picture(read_bounded(path, MAX_BYTES), heading, caption, alt)
    except IWAEError as error:
        raise _refusal(run, str(error)) from None
    except ValueError as error:
        raise _refusal(run, f"{path}: can't be shown, {error}") from None


def _refusal(run: Path, what: str) -> IWAEError:
    return IWAEError(f"{what}; `iwae analyze {shlex.quote(str(run))}` makes it anew")
