"""Ctrl-C and the signals that tell a process to end: while training, noticed between chunks of steps; everywhere else,
an exception. Schedulers send SIGUSR1 or SIGUSR2 before a time limit: they count as SIGTERM does.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from iwae.errors import IWAEError

# Windows has none of these.
IF_NOT_IGNORED = [number for name in ("SIGHUP", "SIGUSR1", "SIGUSR2") if (number := getattr(signal, name, None))]
ALARM: signal.Signals | None = getattr(signal, "SIGALRM", None)

# After this long an exception that somebody else's code has swallowed is raised again.
AGAIN_SECONDS = 1.0


class Stopped(KeyboardInterrupt):
    """A signal came while nothing watched for it. `exit_status` is the shell's for that signal."""

    def __init__(self, signal_number: int):
        super().__init__(signal_number)
        self.exit_status = 128 + signal_number


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """While entered, those signals raise Stopped, again and again until it gets here.

    Python drops an exception that a handler raises inside a destructor or a garbage collector's callback, and JAX
    has such: without more, a Ctrl-C could be lost. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        # The alarm comes after a signal, never before: the first number is the one that was meant.
        received.append(number)
        _raise_again_in(AGAIN_SECONDS)
        raise Stopped(received[0])

    def report(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, Stopped):
            unraisable_before(unraisable)

    unraisable_before, sys.unraisablehook = sys.unraisablehook, report
    previous = {number: signal.signal(number, stop) for number in _heeded()}
    if ALARM is not None:
        previous[ALARM] = signal.signal(ALARM, stop)
    try:
        yield
    finally:
        _raise_again_in(0.0)
        sys.unraisablehook = unraisable_before
        for number, handler in previous.items():
            signal.signal(number, handler)


def _raise_again_in(seconds: float) -> None:
    # Windows has no such timer.
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _heeded() -> list[signal.Signals]:
    # What was started with nohup is to live on when its terminal closes.
    others = [number for number in IF_NOT_IGNORED if signal.getsignal(number) is not signal.SIG_IGN]
    return [signal.SIGINT, signal.SIGTERM, *others]


class Interrupted(IWAEError):
    """A signal ended the work, as it was meant to; what was done is saved. `exit_status` is the shell's for that
    signal.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_status = 128 + signal_number


class SignalWatch:
    """While entered, notes the first of those signals in `received` and counts them in `count`.

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
            self._previous = {number: signal.signal(number, self._note) for number in _heeded()}
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
