"""Ctrl-C, SIGTERM and SIGHUP, noticed between chunks of steps instead of in the middle of one."""

import signal
import threading
from types import FrameType

from iwae.errors import IWAEError

# Windows has no SIGHUP.
HANG_UP: signal.Signals | None = getattr(signal, "SIGHUP", None)


class Interrupted(IWAEError):
    """A signal ended the work; what was done is saved. `exit_status` is the shell's for that signal."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_status = 128 + signal_number


class SignalWatch:
    """While entered, notes the first SIGINT, SIGTERM or SIGHUP in `received` and counts them in `count`.

    A second one acts at once, unless `hold` is true: then all are only counted. Does nothing outside the main
    thread, where Python allows no handlers.
    """

    def __init__(self, *, hold: bool = False) -> None:
        self.received: int | None = None
        self.count = 0
        self._hold = hold
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "SignalWatch":
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT, signal.SIGTERM]
            # What was started with nohup is to live on when its terminal closes.
            if HANG_UP is not None and signal.getsignal(HANG_UP) is not signal.SIG_IGN:
                numbers.append(HANG_UP)
            self._previous = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.count += 1
        if self.received is None:
            self.received = number
        if not self._hold:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._previous = {}

    def check(self, message: str) -> None:
        """Raises Interrupted with `message` if a signal has come."""
        if self.received is not None:
            raise Interrupted(message, self.received)
