"""The processes that train one run together: they meet at process 0, which then says how many steps come next, and all
find out when one of them dies or hangs.

Each has a connection (TCP) to process 0, and a message is a line of JSON, `[kind, value]`. A sum over all processes
can't be given a time limit, and the library's own watch (`jax.distributed`) aborts a process without a word: hence this
one.

hello   to process 0: who it is, and what it was asked to train
meet    from process 0, once all are there: the port at which `jax.distributed` meets
beat    both ways every second; to process 0 with the signal that has come, if one has
same    from process 0: what the others must have too
steps   from process 0: how many come next
done    to process 0, which waits for it: what is done in turn
end     both ways: how this process has ended
lost    from process 0: which one died, or does not answer
"""

import contextlib
import json
import os
import platform
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from iwae.errors import IWAEError
from iwae.io.json import decode
from iwae.runs.options import DistributedOptions
from iwae.runs.signals import Interrupted, SignalWatch

BEAT_SECONDS = 1.0
SILENT_SECONDS = 30.0
MEETING_SECONDS = 300.0
# For a main thread to end by itself, once another process is lost, and for a last word to arrive.
GRACE_SECONDS = 5.0
MOST_BYTES = 1 << 20


class PeerLost(IWAEError):
    """Another process of this training has died, hangs, or has ended before time."""


class Connection:
    """Messages to and from another process."""

    def __init__(self, link: socket.socket):
        link.settimeout(BEAT_SECONDS)
        self._link, self._sending, self._content = link, threading.Lock(), b""

    def send(self, kind: str, value: Any = None) -> None:
        """Nothing comes of it where the other process is lost: that is found out by receiving."""
        with self._sending, contextlib.suppress(OSError):
            self._link.sendall(json.dumps([kind, value]).encode() + b"\n")

    def receive(self, patience: float) -> Iterator[tuple[str, Any]]:
        """What comes, until the other side closes. Raises TimeoutError once nothing came for `patience` seconds of this
        process's own running, OSError where the connection breaks, and ValueError for what is no message.
        """
        silent = 0.0
        while len(self._content) <= MOST_BYTES:
            line, newline, rest = self._content.partition(b"\n")
            if newline:
                self._content, silent = rest, 0.0
                yield decode(line, tuple[str, Any])
                continue
            try:
                received = self._link.recv(1 << 16)
            except TimeoutError:
                # Counted, for a clock goes on while all processes are suspended.
                silent += BEAT_SECONDS
                if silent >= patience:
                    raise
                continue
            if not received:
                return
            self._content += received
        raise ValueError("a message without end")

    def close(self) -> None:
        """Sends no more. What was sent arrives: it would not, were the connection closed before all is received."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)


class Peers:
    """This process among those that train a run, from `meet` to `end`.

    `asked` is what all must have been asked to train. Where another process is lost, whoever waits here for it gets
    PeerLost, with a line that names it; `on_stuck` is called with that, in another thread, if this process has not
    ended seconds later: it may wait for the lost one without end.
    """

    def __init__(
        self, options: DistributedOptions, asked: dict[str, Any], advice: str, on_stuck: Callable[[IWAEError], None]
    ):
        self.place, self.signals = options.place, SignalWatch()
        self._asked, self._advice, self._on_stuck = asked, advice, on_stuck
        self._who = f"process {os.getpid()} on {platform.node()}"
        self._links: dict[int, tuple[Connection, threading.Thread]] = {}
        self._names: dict[int, str] = {}
        self._inbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._ending, self._over, self._is_lost = threading.Lock(), threading.Event(), threading.Event()
        self.error: IWAEError | None = None
        """Which process is lost, once one is."""

    @property
    def is_first(self) -> bool:
        """Whether this is process 0."""
        return self.place.index == 0

    def meet(self) -> int:
        """Waits until all are there, and returns the port for `jax.distributed`. Raises PeerLost where one does not
        come, and IWAEError for an address that can't be used and for processes that do not fit together.
        """
        host, port, *_ = self.place
        try:
            socket.getaddrinfo(host, port)
        except (OSError, UnicodeError):
            raise IWAEError(f"`distributed` {host}:{port}: no host of that name is known here") from None
        threading.Thread(target=self._beat, daemon=True).start()
        if not self.is_first:
            self._join()
            return self._next("meet")
        self._wait_for_all()
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        self._tell("meet", port)
        return port

    def agree(self, num_steps: int) -> int:
        """The number of steps that process 0 gives; in the others 0 once it wants no more. Raises PeerLost."""
        if not self.is_first:
            return self._next("steps")
        self._check()
        self._tell("steps", num_steps)
        return num_steps

    def check_same(self, what: str, value: Any) -> None:
        """Raises IWAEError in a process that has another value than process 0, and PeerLost."""
        if self.is_first:
            self._tell("same", value)
        elif (first := self._next("same")) != json.loads(json.dumps(value)):
            raise IWAEError(f"{what} must be the same for all processes: process 0 has {first}, and this one {value}")

    def in_turn(self, action: Callable[[], None]) -> None:
        """Has the others do something, then process 0. Raises PeerLost."""
        for _ in self._links if self.is_first else ():
            self._next("done")
        action()
        if not self.is_first:
            self._tell("done", None)

    def end(self, error: BaseException | None = None) -> None:
        """Tells the others how this process has ended; without an error, that process 0 wants no more steps. Waits
        until they have ended too, but not for long.
        """
        with self._ending:
            is_over = self._over.is_set()
            self._over.set()
        if not is_over:
            status, says = getattr(error, "exit_status", 1), " ".join(str(error).split())
            self._tell("end", {"status": 0 if error is None else status, "says": says or type(error).__name__})
        if self.error is None:
            end = time.monotonic() + (SILENT_SECONDS if error is None else GRACE_SECONDS)
            for link, thread in self._links.values():
                link.close()
                thread.join(max(0.0, end - time.monotonic()))

    def lost(self, error: BaseException) -> BaseException:
        """Of a broken connection of the library's, which does not say whose it was: PeerLost, once that is known."""
        self._is_lost.wait(SILENT_SECONDS + GRACE_SECONDS)
        return self.error or error

    # Meeting

    def _wait_for_all(self) -> None:
        count, end = self.place.count, time.monotonic() + MEETING_SECONDS
        with self._listener() as listener:
            while missing := [str(other) for other in range(1, count) if other not in self._links]:
                if time.monotonic() >= end:
                    raise PeerLost(
                        f"process {', '.join(missing)} of {count} (from 0) has not come within {MEETING_SECONDS:.0f} s:"
                        " start all with the same command but for `process_id`"
                    )
                self._check()
                with contextlib.suppress(TimeoutError):
                    self._welcome(Connection(listener.accept()[0]))

    def _listener(self) -> socket.socket:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        try:
            listener = socket.create_server(("", self.place.port), family=family, dualstack_ipv6=both)
        except OSError as error:
            raise IWAEError(
                f"`distributed`: port {self.place.port} can't be used on this machine"
                f" ({os.strerror(error.errno or 0)}): choose another, the same for all, and start process 0 once"
            ) from None
        listener.settimeout(BEAT_SECONDS)
        return listener

    def _join(self) -> None:
        host, port, index, count = self.place
        end = time.monotonic() + MEETING_SECONDS
        while True:
            try:
                link = socket.create_connection((host, port), timeout=GRACE_SECONDS)
                break
            except OSError as error:
                if time.monotonic() >= end:
                    raise PeerLost(
                        f"process 0 of {count} has not answered at {host}:{port} within {MEETING_SECONDS:.0f} s"
                        f" ({error.strerror or error}): start it on that host, with the same command"
                    ) from None
                time.sleep(BEAT_SECONDS)
        first = Connection(link)
        # Before it is there for the thread that sends beats.
        first.send("hello", [index, count, self._who, self._asked])
        self._add(0, f"process 0 of {count} (at {host}:{port})", first)

    def _welcome(self, link: Connection) -> None:
        """Takes in a process. Raises IWAEError for one that does not fit; what else connects here is ignored."""
        try:
            _, (index, count, who, asked) = next(link.receive(SILENT_SECONDS))
        except (StopIteration, OSError, ValueError, TypeError):
            return
        name = f"process {index} of {count} (from 0; {who})"
        problem = None
        if count != self.place.count:
            problem = f"{name} has come to process 0 of {self.place.count}: give all the same `num_processes`"
        elif index in self._links or index == 0:
            problem = f"{name} is there already, {self._names.get(index, self._who)}: give each its own `process_id`"
        elif differing := [key for key in {**asked, **self._asked} if asked.get(key) != self._asked.get(key)]:
            theirs, ours = (", ".join(f"{key} {own.get(key)}" for key in differing) for own in (asked, self._asked))
            problem = f"{name} has {theirs} where process 0 has {ours}: start all with the same command"
        if problem is not None:
            link.send("end", {"status": 1, "says": problem})
            raise IWAEError(problem)
        self._add(index, name, link)

    def _add(self, index: int, name: str, link: Connection) -> None:
        thread = threading.Thread(target=self._listen, args=(name, link), daemon=True)
        self._links[index], self._names[index] = (link, thread), name
        thread.start()

    # Afterwards

    def _next(self, expected: str) -> Any:
        """What comes next; 0 steps once process 0 has ended well. Raises PeerLost, and Interrupted."""
        kind, value = self._inbox.get()
        if isinstance(value, BaseException):
            raise value
        if kind != expected:
            raise PeerLost(f"another process says {kind!r} where {expected!r} was due: it is of another version")
        return value

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _tell(self, kind: str, value: Any) -> None:
        for link, _ in [*self._links.values()]:
            link.send(kind, value)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._tell("beat", self.signals.received)

    def _listen(self, name: str, link: Connection) -> None:
        try:
            for kind, value in link.receive(SILENT_SECONDS):
                if kind == "end":
                    self._has_ended(name, **value)
                elif kind == "lost":
                    self._lose(PeerLost(value))
                elif kind != "beat":
                    self._inbox.put((kind, value))
                elif self.is_first:
                    # A signal for one is a signal for all.
                    self.signals.received = self.signals.received or value
            problem = "died"
        except TimeoutError:
            problem = f"has not answered for {SILENT_SECONDS:.0f} s"
        except OSError as error:
            problem = f"died ({error.strerror or error})"
        except ValueError:
            problem = "is no process of such a run: it says something else"
        self._lose(PeerLost(f"{name} {problem}; {self._advice}"))

    def _has_ended(self, name: str, status: int, says: str) -> None:
        if status > 128:
            what = f"{name} was told to stop" if self.is_first else "process 0 has saved what is done"
            self._lose(Interrupted(f"{what}; {self._advice}", status - 128))
        elif status > 0:
            self._lose(PeerLost(f"{name} has ended: {says}"))
        else:
            self._over.set()
            self._inbox.put(("steps", 0))

    def _lose(self, error: IWAEError) -> None:
        with self._ending:
            if self._over.is_set():
                return
            self._over.set()
        if self.is_first:
            self._tell("lost", str(error))
        self.error = error
        self._is_lost.set()
        self._inbox.put(("lost", error))
        time.sleep(GRACE_SECONDS)
        self._on_stuck(error)
