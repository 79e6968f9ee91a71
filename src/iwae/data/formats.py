"""Readers of the file formats. Sizes that a file merely claims are checked before memory is taken."""

import io
import math
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from iwae.data.files import BadFileError, one_line
from iwae.io.files import open_regular

MAX_ARRAY_BYTES = 16 << 30
"""No more than this much (16 GiB) is ever read from one of the user's own files, uncompressed."""

_IDX_IMAGES = 0x00000803
_NPY_HEADER_BYTES = 1 << 14
# Deflate cannot do better than this; an archive that claims more lies about its sizes.
_MAX_DEFLATE_RATIO = 1032


def idx_bytes(images: np.ndarray) -> bytes:
    """The content of an idx3 file that holds the uint8 `[n, height, width]` images."""
    return struct.pack(">4I", _IDX_IMAGES, *images.shape) + images.tobytes()


def parse_idx(content: bytes) -> np.ndarray:
    """The uint8 `[n, height, width]` images of an idx3 file, a read-only view of `content`.

    Raises `BadFileError` where the header is another one or does not fit the number of bytes.
    """
    if len(content) < 16:
        raise BadFileError(f"an idx file of {len(content)} bytes has no whole header")
    magic, *shape = struct.unpack(">4I", content[:16])
    if magic != _IDX_IMAGES:
        raise BadFileError(f"starts with {magic:#010x}, not with {_IDX_IMAGES:#010x} as idx images do")
    # Nothing times something huge is nothing, but more than an array may claim.
    if math.prod(shape) != len(content) - 16 or 0 in shape:
        raise BadFileError(f"its header claims {tuple(shape)} bytes of images, {len(content) - 16} are there")
    return np.frombuffer(content, np.uint8, offset=16).reshape(shape)


def parse_amat(content: bytes, dim: int) -> np.ndarray:
    """The uint8 `[rows, dim]` zeros and ones of an .amat text: digits with one blank or newline after each.

    Raises `BadFileError` where the text is anything else.
    """
    if len(content) == 0 or len(content) % (2 * dim) != 0:
        raise BadFileError(f"{len(content)} bytes are not whole rows of {dim} digits")
    text = np.frombuffer(content, np.uint8).reshape(-1, 2 * dim)
    # '0' and '1' are the codes 48 and 49; whatever is below wraps around to far more than 1.
    values = text[:, ::2] - np.uint8(ord("0"))
    separators = np.full(dim, ord(" "), np.uint8)
    separators[-1] = ord("\n")
    if values.max() > 1 or not np.array_equal(text[:, 1::2], np.broadcast_to(separators, values.shape)):
        raise BadFileError(f"not rows of {dim} zeros and ones, separated by single blanks")
    return values


def read_npy(path: Path) -> np.ndarray:
    """The array of a NumPy .npy file of at most 16 GiB. Never unpickles.

    Raises `BadFileError`, `IWAEError` where it is no regular file, and OSError where it can't be read.
    """
    with open_regular(path) as stream:
        return _read_array(stream, os.fstat(stream.fileno()).st_size, "the array")


def read_npz(path: Path, keys: tuple[str, ...], *, max_bytes: int = MAX_ARRAY_BYTES) -> dict[str, np.ndarray]:
    """Those arrays of a NumPy .npz archive whose keys are given, where it has them. Never unpickles.

    Raises `BadFileError` where the file is no such archive, is damaged, or its arrays of these keys take more
    than `max_bytes` (16 GiB) together, `IWAEError` where it is no regular file, and OSError where it can't be read.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            present = set(archive.namelist())
            members = {key: archive.getinfo(f"{key}.npy") for key in keys if f"{key}.npy" in present}
            if sum(member.file_size for member in members.values()) > max_bytes:
                raise BadFileError(f"unpacks to more than {max_bytes:,} bytes")
            for key, member in members.items():
                _check_member(key, member)
            arrays = {}
            for key, member in members.items():
                with archive.open(member) as stream:
                    arrays[key] = _read_array(stream, member.file_size, f"'{key}'")
            return arrays
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise BadFileError(f"not a readable .npz archive ({one_line(error)})") from error


def _check_member(key: str, member: zipfile.ZipInfo) -> None:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadFileError(f"'{key}' is compressed in a way that numpy.savez does not use")
    if member.header_offset < 0:
        raise BadFileError(f"'{key}' claims to lie before the beginning of the file")
    if member.file_size > _MAX_DEFLATE_RATIO * (member.compress_size + 1):
        raise BadFileError(
            f"'{key}' claims to unpack from {member.compress_size} to {member.file_size} bytes, which is impossible"
        )


def _read_array(stream: IO[bytes], size: int, what: str) -> np.ndarray:
    """The array in a seekable stream of `size` bytes, its header checked against `size` first."""
    read_header(stream, size, what, MAX_ARRAY_BYTES)
    if size > MAX_ARRAY_BYTES:
        raise BadFileError(f"{what} takes more than {MAX_ARRAY_BYTES >> 30} GiB")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


@dataclass(frozen=True)
class Header:
    """What an .npy file says of its array, whose numbers begin at byte `start`."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    start: int


def read_header(stream: IO[bytes], size: int, what: str, most: int) -> Header:
    """The header of the array in a stream of `size` bytes, of which at most `most` are numbers.

    Raises BadFileError where it is none, is not of numbers, or does not go with `size`.
    """
    beginning = io.BytesIO(stream.read(_NPY_HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(beginning)
        if version == (1, 0):
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(beginning)
        elif version == (2, 0):
            shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(beginning)
        else:
            raise BadFileError(f"{what} has version {version} of the .npy format, expected (1, 0) or (2, 0)")
    except BadFileError:
        raise
    except Exception as error:  # the header is a Python expression: a damaged one raises nearly anything
        raise BadFileError(f"{what} is not in the .npy format ({one_line(error)[:100]})") from error
    if dtype.kind not in "buif":
        raise BadFileError(f"{what} is of type {one_line(dtype)[:60]}, expected numbers")
    claimed = math.prod(shape) * dtype.itemsize
    # NumPy's own check of the header takes True for the number one.
    if (
        any(isinstance(length, bool) for length in shape)
        or min(shape, default=0) < 0
        or math.prod(filter(None, shape)) > most
        or claimed != size - beginning.tell()
    ):
        raise BadFileError(
            f"{what} claims shape {shape} of {dtype} in its header, but {size - beginning.tell()} bytes follow"
        )
    return Header(shape, is_fortran, dtype, beginning.tell())
