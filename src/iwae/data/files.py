"""Finding and reading files: bounded reads, checksums, the search path."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from iwae.errors import IWAEError

ENVIRONMENT_VARIABLE = "IWAE_DATASETS_DIR"

GZIP_MAGIC = b"\x1f\x8b"
"""What gzip data start with; none of the canonical files does."""


class BadFileError(Exception):
    """A file's content is not what it has to be; the message says why, its catcher says which file."""


@dataclass(frozen=True)
class CanonicalFile:
    """One published file: where it lies below a datasets directory and how its content is recognized.

    `relative` is its path in the layout of the paper's code, and `others` are its paths in those of other programs.
    `checksum` is `sha256:<hex>` or `git-blob:<hex>` of the uncompressed content. No more than `max_bytes` of
    uncompressed content are ever read.
    """

    relative: str
    checksum: str
    max_bytes: int
    others: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's own name, without its folder."""
        return self.relative.rpartition("/")[2]


def one_line(value: object) -> str:
    """The text of `value` on a single line, for use inside an error message."""
    return " ".join(str(value).split())


def search_directories(directory: str | Path | None = None, default_directory: str | Path | None = None) -> list[Path]:
    """The directories that are searched for datasets, first to last; a download is stored in the first.

    They are `directory` (the user's explicit choice), the environment variable `IWAE_DATASETS_DIR`,
    `default_directory` (what a program passes as its own default) and the user's cache directory, without
    those that are not set. None of them has to exist. Each is absolute, with `~` expanded.
    """
    import platformdirs

    cache = Path(platformdirs.user_cache_dir("iwae", appauthor=False)) / "datasets"
    chosen = [directory, os.environ.get(ENVIRONMENT_VARIABLE), default_directory, cache]
    paths = [Path(os.path.abspath(os.path.expanduser(path))) for path in chosen if path is not None and str(path)]
    return list(dict.fromkeys(paths))


def find(file: CanonicalFile, directories: Sequence[Path]) -> Path | None:
    """The first existing file for `file`, plain before gzipped within each directory, or None."""
    for directory in directories:
        for name in (name + suffix for name in (file.relative, *file.others) for suffix in ("", ".gz")):
            path = directory / name
            # os.path.isfile, as Path.is_file raises where a directory may not be entered: search on instead.
            if os.path.isfile(path):
                return path
    return None


def gunzip(stream: IO[bytes], max_bytes: int) -> bytes:
    """The uncompressed content of a binary stream of gzip data, never taking more than about `max_bytes`.

    Raises `BadFileError` where the data is damaged, cut off, or unpacks to more than `max_bytes`.
    """
    try:
        with gzip.GzipFile(fileobj=stream) as unpacked:
            content = unpacked.read(max_bytes + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadFileError(f"damaged gzip data ({one_line(error)})") from error
    if len(content) > max_bytes:
        raise BadFileError(f"unpacks to more than the {max_bytes} bytes expected")
    return content


def read_content(path: Path, max_bytes: int) -> bytes:
    """The uncompressed content of a plain or gzipped (`.gz`) file.

    Raises `BadFileError` where that is more than `max_bytes` or damaged, `IWAEError` where the file cannot
    be read at all.
    """
    try:
        with path.open("rb") as stream:
            if path.suffix == ".gz":
                return gunzip(stream, max_bytes)
            content = stream.read(max_bytes + 1)
    except OSError as error:
        raise IWAEError(
            f"cannot read {one_line(path)}: {error.strerror or one_line(error)}; make the file readable or remove it"
        ) from error
    if len(content) > max_bytes:
        raise BadFileError(f"larger than the {max_bytes} bytes expected")
    return content


def checksum(content: bytes, kind: str) -> str:
    """`kind:<hex>` of content; `kind` is `sha256` or `git-blob` (SHA-1 over git's header and the content)."""
    if kind == "sha256":
        return "sha256:" + hashlib.sha256(content).hexdigest()
    digest = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return "git-blob:" + digest.hexdigest()


def content_checksum(file: CanonicalFile, content: bytes) -> str:
    """The checksum of content, of the kind that is published for `file`."""
    return checksum(content, file.checksum.partition(":")[0])
