"""Images of own data: folders of PNG and JPEG files, and of idx files as MNIST and its relatives come."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iwae.data.files import BadFileError, one_line, read_content
from iwae.data.formats import MAX_ARRAY_BYTES, parse_idx

SUFFIXES = (".png", ".jpg", ".jpeg")
IDX_SUFFIXES = ("idx3-ubyte", "idx3-ubyte.gz")
# MNIST's names, EMNIST's with the name of a part before them, and those with a dot.
_IDX_NAME = re.compile(r"(?:.*-)?(train|t10k|test)-images[-.]idx3-ubyte(?:\.gz)?")
_SPLITS = ("train", "valid", "test")


def image_files(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder by split: idx files, or the images of its folders `train`, `valid` and `test`; where it has
    no `train`, all images in it as `all`.

    Raises BadFileError where there are none.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _IDX_NAME.fullmatch(path.name)
        if match is not None:
            found.setdefault("train" if match[1] == "train" else "test", []).append(path)
    if found and set(found) != {"train", "test"}:
        raise BadFileError(f"it has idx images for {' and '.join(found)}, but needs some for train and for test")
    for name, paths in found.items():
        if len(paths) > 1:
            raise BadFileError(f"it has {len(paths)} idx files for {name} ({paths[0].name}, {paths[1].name}): keep one")
    if not found:
        parts = {name: _images_in(folder / name) for name in _SPLITS if (folder / name).is_dir()}
        found = parts if "train" in parts else {"all": _images_in(folder)}
    for name, paths in found.items():
        if not paths:
            raise BadFileError(f"there are no PNG, JPEG or idx images{'' if name == 'all' else f' for {name}'} in it")
    return found


def read_images(paths: Sequence[Path]) -> np.ndarray:
    """The uint8 images `[n, height, width]` of one idx file, or of PNG and JPEG files, whose colours become grey.

    Raises BadFileError, naming the file, for one that can't be read or is of another size than the first.
    """
    if paths[0].name.endswith(IDX_SUFFIXES):
        return parse_idx(read_content(paths[0], MAX_ARRAY_BYTES))
    from PIL import Image

    images: np.ndarray | None = None
    for place, path in enumerate(paths):
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("L"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadFileError(f"{one_line(path.name)} is no readable image ({one_line(error)[:100]})") from error
        if images is None:
            if len(paths) * pixels.size > MAX_ARRAY_BYTES:
                raise BadFileError(f"{len(paths)} images of {pixels.shape} take more than {MAX_ARRAY_BYTES >> 30} GiB")
            images = np.empty((len(paths), *pixels.shape), np.uint8)
        if pixels.shape != images.shape[1:]:
            raise BadFileError(
                f"{one_line(path.name)} has {pixels.shape[0]} x {pixels.shape[1]} pixels, {one_line(paths[0].name)}"
                f" {images.shape[1]} x {images.shape[2]}: give all one size"
            )
        images[place] = pixels
    assert images is not None
    return images


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
