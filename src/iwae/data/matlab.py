"""Matrices in MATLAB 5.0 files: real, dense numbers and nothing else.

SciPy reads far more of the format, and trusts it: a changed byte can make its compiled reader read memory that is not
its own. Here every size is held against the bytes that are there.
"""

import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from iwae.data.files import BadFileError, one_line

_HEADER_BYTES = 128
# Flags, dimensions and name of a matrix are within this much of its beginning.
_DESCRIPTION_BYTES = 1024
_MATRIX, _COMPRESSED = 14, 15
_INT8, _INT32, _UINT32 = 1, 5, 6
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = ("", "cell", "struct", "object", "char", "sparse", "double", "single", "int8", "uint8")
_READABLE = {"double": np.float64, "single": np.float32, "uint8": np.uint8, "logical": np.uint8}
_COMPLEX, _LOGICAL = 0x0800, 0x0200


@dataclass(frozen=True)
class _Matrix:
    """What a file says of a matrix; `values` are the element that holds its numbers, perhaps still packed."""

    kind: str
    is_complex: bool
    shape: tuple[int, ...]
    order: str
    body: bytes
    values_at: int
    packed: bytes | None

    def read(self) -> np.ndarray:
        """The numbers, of the matrix's own type. Raises `BadFileError` where they are not as many as its shape says."""
        count = math.prod(self.shape)
        body = self.body
        if self.packed is not None:
            # Numbers of eight bytes at most, tags and padding.
            most = 8 + self.values_at + 8 + 8 * count + 8
            _, body, _ = _element(_inflate(self.packed, most, is_whole=True), 0, self.order, is_whole=False)
        code, values, _ = _element(body, self.values_at, self.order)
        if code not in _NUMBERS:
            raise _damaged(f"its numbers are of type {code}")
        stored = np.dtype(self.order + _NUMBERS[code])
        if len(values) != count * stored.itemsize:
            raise _damaged(f"{len(values)} bytes for {count} numbers")
        numbers = np.frombuffer(values, stored).astype(_READABLE[self.kind])
        return numbers.reshape(self.shape, order="F")


def check_mat(content: bytes, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise `BadFileError` unless content is a MATLAB 5 file with real matrices of these names and shapes."""
    _find(content, shapes)


def parse_mat(content: bytes, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The matrices of these names and shapes in a MATLAB 5 file, and nothing else of it.

    Raises `BadFileError` as `check_mat` does, and where the data is damaged.
    """
    return {name: matrix.read() for name, matrix in _find(content, shapes).items()}


def _find(content: bytes, shapes: dict[str, tuple[int, ...]]) -> dict[str, _Matrix]:
    if not content.startswith(b"MATLAB 5.0 MAT-file"):
        raise BadFileError("not a MATLAB 5.0 file")
    order = "<" if content[126:128] == b"IM" else ">"
    listed: dict[str, _Matrix] = {}
    damage: BadFileError | None = None
    position = _HEADER_BYTES
    while position < len(content):
        code, body, position = _element(content, position, order)
        try:
            packed = body if code == _COMPRESSED else None
            if packed is not None:
                code, body, _ = _element(_inflate(packed, _DESCRIPTION_BYTES), 0, order, is_whole=False)
            if code == _MATRIX:
                name, matrix = _describe(body, order, packed)
                listed[name] = matrix
        except BadFileError as error:
            # What nobody asked for may be what it likes.
            damage = damage or error
    for name, shape in shapes.items():
        if name not in listed:
            raise damage or BadFileError(f"has no variable '{name}'")
        found = listed[name]
        if found.shape != shape or found.kind not in _READABLE or found.is_complex:
            kind = f"complex {found.kind}" if found.is_complex else found.kind
            raise BadFileError(f"its variable '{name}' is a {kind} of shape {found.shape}, expected {shape}")
    return {name: listed[name] for name in shapes}


def _describe(body: bytes, order: str, packed: bytes | None) -> tuple[str, _Matrix]:
    """A matrix's name and description from the beginning of its element."""
    flags_code, flags, position = _element(body, 0, order)
    if flags_code != _UINT32 or len(flags) != 8:
        raise _damaged("a matrix without flags")
    (flag,) = struct.unpack(order + "I", flags[:4])
    number = flag & 0xFF
    kind = _CLASSES[number] if number < len(_CLASSES) else f"matrix of class {number}"
    shape_code, sizes, position = _element(body, position, order)
    if shape_code != _INT32 or len(sizes) % 4:
        raise _damaged("a matrix without dimensions")
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    name_code, name, position = _element(body, position, order)
    if name_code != _INT8:
        raise _damaged("a matrix without a name")
    kind = "logical" if flag & _LOGICAL and kind == "uint8" else kind
    matrix = _Matrix(kind, bool(flag & _COMPLEX), shape, order, body, position, packed)
    return name.decode("latin-1"), matrix


def _element(content: bytes, position: int, order: str, *, is_whole: bool = True) -> tuple[int, bytes, int]:
    """Type code and bytes of the element at a position, and the position of the next; where it is not the whole
    content, the bytes that are there.
    """
    if position + 8 > len(content):
        raise _damaged("cut off")
    code, size = struct.unpack_from(order + "2I", content, position)
    if code >> 16:
        # A small one: its size and type in four bytes, its data in the next four.
        code, size = code & 0xFFFF, code >> 16
        start, following = position + 4, position + 8
        if size > 4:
            raise _damaged(f"a small element of {size} bytes")
    else:
        start = position + 8
        following = start + size + (0 if code == _COMPRESSED else -size % 8)
    if is_whole and start + size > len(content):
        raise _damaged(f"{size} bytes claimed where {len(content) - start} are left")
    return code, content[start : start + size], following


def _inflate(packed: bytes, max_bytes: int, *, is_whole: bool = False) -> bytes:
    """What zlib data unpacks to: its first `max_bytes`, or the whole, which may not be more and has its checksum."""
    unpacker = zlib.decompressobj()
    try:
        # One more byte than there may be lets zlib come to the end, where the checksum is.
        unpacked = unpacker.decompress(packed, max_bytes + 1)
    except zlib.error as error:
        raise _damaged(one_line(error)) from None
    if is_whole and not unpacker.eof:
        what = f"unpacks to more than {max_bytes} bytes" if len(unpacked) > max_bytes else "its packed data is cut off"
        raise _damaged(what)
    return unpacked


def _damaged(what: str) -> BadFileError:
    return BadFileError(f"damaged MATLAB file ({what})")
