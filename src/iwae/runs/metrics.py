"""A run's metrics.jsonl: one line an epoch, read up to the first that is damaged."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from iwae.io.files import naming, open_regular, read_bounded, write_atomically
from iwae.io.json import MAX_JSON_BYTES, decode
from iwae.runs.records import MetricsLine

LINE_BYTES = 4096
"""More than a line takes."""


class Metrics:
    """The file at `path`, which need not exist."""

    def __init__(self, path: Path):
        self.path = path

    def lines(self, until: int | None = None) -> list[MetricsLine]:
        """The lines of the file (those up to the step `until`) before the first damaged one, or the last where
        that was only half written.

        Raises IWAEError where it is no regular file or larger than any that training writes, and OSError where it
        can't be read.
        """
        return [line for _, line in _intact(self._content()) if until is None or line["step"] <= until]

    def write(self, lines: Iterable[MetricsLine]) -> None:
        """Writes the whole file anew. Raises OSError, naming the file."""
        write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def cut(self, step: int) -> None:
        """Drops the lines after `step`, and from the first damaged one on. Raises IWAEError as `lines` does."""
        content = self._content()
        kept = b"".join(text for text, line in _intact(content) if line["step"] <= step)
        if not self.path.exists() or content != kept:
            write_atomically(self.path, kept)

    def epochs_done(self) -> int:
        """Epochs done by the last whole line of the file: cheap to ask again and again while it grows.

        Raises what `lines` does, but for a file that is too large.
        """
        try:
            with open_regular(self.path) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LINE_BYTES))
                *lines, _ = file.read(LINE_BYTES).split(b"\n")
        except FileNotFoundError:
            return 0
        for text in reversed(lines):
            with contextlib.suppress(ValueError):
                return decode(text, MetricsLine)["epoch"]
        return 0

    def _content(self) -> bytes:
        try:
            return read_bounded(self.path, MAX_JSON_BYTES)
        except FileNotFoundError:
            return b""

    def append(self, line: MetricsLine) -> None:
        """Appends one line, durably. Raises OSError, naming the file."""
        with naming(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _intact(content: bytes) -> Iterator[tuple[bytes, MetricsLine]]:
    """Lines of metrics, as text and read, up to the first that is damaged or not whole."""
    for text in content.splitlines(keepends=True):
        try:
            line = decode(text, MetricsLine)
        except ValueError:
            return
        if not text.endswith(b"\n"):
            return
        yield text, line
