"""Ctrl-C and SIGTERM, noticed between chunks of steps instead of in the middle of one."""

import signal
import threading
from types import FrameType

from iwae.errors import IWAEError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(IWAEError):
    """A signal ended the work; what was done is saved. `exit_status` is the shell's for that signal."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_status = 128 + signal_number


class SignalWatch:
    """While entered, notes the first SIGINT or SIGTERM in `received`; a second one acts at once.

    Does nothing outside the main thread, where Python allows no handlers.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "SignalWatch":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._previous = {}

    def check(self, message: str) -> None:
        """Raises Interrupted with `message` if a signal has come."""
        if self.received is not None:
            raise Interrupted(message, self.received)
