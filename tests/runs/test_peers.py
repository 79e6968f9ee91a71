"""How processes of one run meet, and find out what becomes of each other: here in threads, over real connections."""

import contextlib
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from helpers.slurm import free_ports
from iwae import IWAEError
from iwae.runs import peers as module
from iwae.runs.options import DistributedOptions, Place
from iwae.runs.peers import PeerLost, Peers
from iwae.runs.signals import Interrupted

CONFIG = {"k": 5, "seed": 0}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"BEAT": 0.05, "SILENT": 60.0, "MEETING": 60.0, "GRACE": 0.5}
    for name, value in seconds.items():
        monkeypatch.setattr(module, f"{name}_SECONDS", value)


class Group:
    """Several of them; `stuck` is what those are called with that have not ended in time."""

    def __init__(self, count: int, **configs: dict[str, Any]):
        self.port, self.stuck = free_ports(1)[0], list[tuple[int, BaseException]]()
        self.all = [self.one(index, count, configs.get(f"of_{index}", CONFIG)) for index in range(count)]
        self.pool = ThreadPoolExecutor(8)

    def one(self, index: int, count: int, config: dict[str, Any] = CONFIG) -> Peers:
        options = DistributedOptions(f"localhost:{self.port}", index, count)
        return Peers(options, config, "go on", lambda error: self.stuck.append((index, error)))

    def meet(self) -> list[Future[int]]:
        """As each process does: with an error it tells the others, and ends."""

        def meet(peers: Peers) -> int:
            try:
                return peers.meet()
            except IWAEError as error:
                peers.end(error)
                raise

        return [self.pool.submit(meet, peers) for peers in self.all]


@pytest.fixture
def two() -> Iterator[Group]:
    group = Group(2)
    first, second = (future.result() for future in group.meet())
    assert first == second
    yield group
    for peers in group.all:
        peers.end()


def test_they_take_the_steps_that_the_first_one_says_until_it_wants_no_more(two: Group) -> None:
    first, second = two.all
    assert (first.is_first, second.is_first) == (True, False)
    taken = two.pool.submit(lambda: [second.agree(7) for _ in range(3)])
    assert [first.agree(20), first.agree(3)] == [20, 3]
    ended = two.pool.submit(first.end)
    assert taken.result() == [20, 3, 0]
    second.end()
    ended.result()
    assert two.stuck == []


def test_they_must_have_the_same_data(two: Group) -> None:
    first, second = two.all
    first.check_same("the data", ("a", 1))
    second.check_same("the data", ("a", 1))
    first.check_same("the data", ["a"])
    with pytest.raises(
        IWAEError, match=r"the data must be the same for all processes: process 0 has \['a'\], and this"
    ):
        second.check_same("the data", ["b"])


def test_one_that_breaks_off_is_named_to_all_and_so_is_one_that_fails() -> None:
    group = Group(3)
    assert len({future.result() for future in group.meet()}) == 1
    first, second, third = group.all
    waiting = group.pool.submit(second.agree, 1)
    third._links[0][0]._link.shutdown(socket.SHUT_RDWR)
    name = r"process 2 of 3 \(from 0; process \d+ on .*\) died.*; go on$"
    with pytest.raises(PeerLost, match=name):
        waiting.result()
    with pytest.raises(PeerLost, match=name):
        first.agree(1)
    assert re.match(name, str(first.lost(RuntimeError("connection closed"))))
    # Whoever has not ended by then is told from another thread.
    while len(group.stuck) < 3:
        pass
    assert {index for index, _ in group.stuck} == {0, 1, 2}


def test_one_that_fails_says_why(two: Group) -> None:
    first, second = two.all
    waiting = two.pool.submit(second.agree, 1)
    first.end(IWAEError("no room\non the disk"))
    with pytest.raises(PeerLost, match=r"process 0 of 2 \(at localhost:\d+\) has ended: no room on the disk$"):
        waiting.result()


def test_one_that_is_told_to_stop_tells_the_first_which_stops_all(two: Group) -> None:
    first, second = two.all
    second.signals.received = signal.SIGTERM
    while first.signals.received is None:
        pass
    assert first.signals.received == signal.SIGTERM
    waiting = two.pool.submit(second.agree, 1)
    first.end(Interrupted("all is saved", signal.SIGTERM))
    with pytest.raises(Interrupted, match="process 0 has saved what is done; go on") as stopped:
        waiting.result()
    assert stopped.value.exit_status == 128 + signal.SIGTERM


def test_one_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 1.0)
    group = Group(2)
    assert len({future.result() for future in group.meet()}) == 1
    first, second = group.all
    with second._links[0][0]._sending:
        assert first._is_lost.wait(60)
    with pytest.raises(PeerLost, match=r"process 1 of 2 .* has not answered for 1 s; go on"):
        first.agree(1)


def test_one_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEETING_SECONDS", 1.0)
    group = Group(3)
    del group.all[1]
    first, third = group.meet()
    with pytest.raises(PeerLost, match=r"process 1 of 3 \(from 0\) has not come within 1 s: start all with the same"):
        first.result()
    with pytest.raises(PeerLost, match=r"process 0 of 3 .* has ended: process 1 of 3"):
        third.result()


def test_without_the_first_the_others_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEETING_SECONDS", 1.0)
    (alone,) = Group(2).all[1:]
    with pytest.raises(PeerLost, match=r"process 0 of 2 has not answered at localhost:\d+ within 1 s \(Connection ref"):
        alone.meet()


@pytest.mark.parametrize(
    ("index", "count", "config", "message"),
    [
        (1, 3, CONFIG, r"process 1 of 3 \(.*\) has come to process 0 of 2: give all the same `num_processes`"),
        (1, 2, {**CONFIG, "k": 50}, r"process 1 of 2 \(.*\) has k 50 where process 0 has k 5: start all with the same"),
        (1, 2, {"k": 5, "seed": 0, "new": 1}, r"has new 1 where process 0 has new None"),
    ],
)
def test_one_that_does_not_fit_ends_all(index: int, count: int, config: dict[str, Any], message: str) -> None:
    group = Group(2)
    other = group.all[1] = group.one(index, count, config)
    first, second = group.meet()
    with pytest.raises(IWAEError, match=message):
        first.result()
    with pytest.raises(IWAEError, match=f"has ended: process 1.*{message[-20:]}"):
        second.result()
    assert other.error is not None


def test_a_number_that_is_given_twice_is_refused() -> None:
    group = Group(3)
    group.all[2] = group.one(1, 3)
    first, *others = group.meet()
    with pytest.raises(IWAEError, match=r"process 1 of 3 .* is there already, process 1 of 3 .*: give each its own"):
        first.result()
    for other in others:
        assert isinstance(other.exception(), IWAEError)


def test_strangers_at_the_port_change_nothing() -> None:
    group = Group(2)
    first = group.pool.submit(group.all[0].meet)
    for words in (
        b"GET / HTTP/1.0\r\n\r\n",
        b"",
        b"[" * 5000 + b"\n",
        b'["hello", 5]\n',
        b'["hello", [1, 2]]\n',
        b"\xff\n",
    ):
        while True:
            with (
                contextlib.suppress(ConnectionRefusedError),
                socket.create_connection(("localhost", group.port)) as link,
            ):
                link.sendall(words)
                break
    assert group.all[1].meet() == first.result()


def test_what_answers_and_is_no_such_process_is_not_waited_for() -> None:
    with socket.create_server(("localhost", 0)) as server:
        group = Group(2)
        group.port = server.getsockname()[1]
        peers = group.one(1, 2)

        def answer() -> None:
            link, _ = server.accept()
            link.sendall(b"220 mail.example ESMTP\r\n")

        threading.Thread(target=answer).start()
        with pytest.raises(PeerLost, match=r"process 0 of 2 .* is no process of such a run"):
            peers.meet()


def test_a_port_in_use_and_an_unknown_host_are_said_at_once() -> None:
    group = Group(2)
    with (
        socket.create_server(("", group.port)),
        pytest.raises(IWAEError, match=rf"`distributed`: port {group.port} can't be used on this machine \(Address"),
    ):
        group.all[0].meet()
    for index in (0, 1):
        options = DistributedOptions("no.such.host.invalid:1234", index, 2)
        with pytest.raises(IWAEError, match=r"`distributed` no.such.host.invalid:1234: no host of that name is known"):
            Peers(options, CONFIG, "", print).meet()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"process_id": 1}, "`process_id` goes with `distributed` host:port"),
        ({"num_processes": 2}, "`num_processes` goes with `distributed` host:port"),
        ({"distributed": "here"}, "`distributed` must be auto, or host:port where process 0 is, got 'here'"),
        ({"distributed": "a:65536", "process_id": 0, "num_processes": 2}, "`distributed` must be auto, or host:port"),
        ({"distributed": "a:1", "process_id": 0}, "`distributed` needs `num_processes`: only srun and torchrun say it"),
        ({"distributed": "a:1", "num_processes": 2}, "`distributed` needs `process_id`"),
        ({"distributed": "auto", "num_processes": 2}, "`distributed` needs `process_id`"),
        ({"distributed": "a:1", "process_id": 5, "num_processes": 2}, "`process_id` must be from 0 to 1, .* got 5"),
        ({"distributed": "a:1", "process_id": -1, "num_processes": 2}, "`process_id` must be from 0 to 1, .* got -1"),
        ({"distributed": "a:1", "process_id": 0, "num_processes": 0}, "`num_processes` must be"),
    ],
)
def test_what_has_no_meaning_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(IWAEError, match=message):
        DistributedOptions(**given)


SLURM = {"SLURM_JOB_ID": "4096", "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8"}
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environment", "given", "place"),
    [
        ({**SLURM, "SLURM_STEP_NODELIST": "node7"}, {}, Place("node7", 61441, 3, 8)),
        ({**SLURM, "SLURM_STEP_NODELIST": "gpu-a[003-007,12],b1"}, {}, Place("gpu-a003", 61441, 3, 8)),
        ({**SLURM, "SLURM_STEP_NODELIST": "n[3,9]"}, {}, Place("n3", 61441, 3, 8)),
        ({**SLURM, "SLURM_STEP_NODELIST": "a1,b1"}, {"distributed": "b1:99"}, Place("b1", 99, 3, 8)),
        ({**SLURM, "SLURM_STEP_NODELIST": "a1"}, {"process_id": 0, "num_processes": 4}, Place("a1", 61441, 0, 4)),
        # torchrun's own store listens at its port.
        (TORCHRUN, {}, Place("10.0.0.1", 29501, 1, 2)),
        (TORCHRUN, {"distributed": "[::1]:5"}, Place("::1", 5, 1, 2)),
        # A job's shell, where srun has not started anything.
        (SLURM, {}, Place("localhost", 0, 0, 1)),
        ({}, {}, Place("localhost", 0, 0, 1)),
    ],
)
def test_the_place_is_what_is_given_or_what_the_launcher_says(
    environment: dict[str, str], given: dict[str, Any], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*SLURM, *TORCHRUN, "SLURM_STEP_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert DistributedOptions(**{"distributed": "auto", **given}).place == place


def test_a_launcher_that_says_no_number_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**TORCHRUN, "RANK": "one"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(IWAEError, match="RANK must be a whole number, got 'one'"):
        DistributedOptions("auto")


def test_messages_are_lines_of_json_however_they_arrive() -> None:
    ours, theirs = socket.socketpair()
    link = module.Connection(ours)
    for byte in json.dumps(["a", 1]).encode() + b"\n" + json.dumps(["b", None]).encode() + b"\n":
        theirs.sendall(bytes([byte]))
    theirs.close()
    assert list(link.receive(1.0)) == [("a", 1), ("b", None)]
