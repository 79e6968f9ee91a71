"""The process that trains runs for `iwae sweep` and `iwae paper run`, or that does what another command has put into a
cluster's queue, with a command line's manners.

On this machine it is `python -m iwae.cli.worker ORDER CORES`: the text of an `Order`, and the cores that it may use,
such as 0,1. Standard input must be a pipe that the parent holds open: when it closes, the parent is gone, and this
process saves and ends as if it had been told to. In a job of Slurm it is `in_job(ORDER)`, with the cores of the job.
"""

import os
import signal
import sys
import threading

from iwae.cli.app import guarded, run_command
from iwae.cli.console import make_reporter
from iwae.runs.orders import CommandOrder, order_of


def main(order: str, cores: str) -> int:
    """Does what `order` asks and returns the exit status, as `iwae train` would."""
    if cores:
        # Before JAX counts them.
        os.sched_setaffinity(0, map(int, cores.split(",")))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return guarded(lambda: _carry_out(order))


def in_job(order: str) -> int:
    """The same in a process that Slurm has started; what it says goes to the order's log."""
    streams = [stream.fileno() for stream in (sys.stdout, sys.stderr)]
    before = [os.dup(stream) for stream in streams]
    with open(order_of(order).log_path, "ab") as log:
        for stream in streams:
            os.dup2(log.fileno(), stream)
    try:
        return guarded(lambda: _carry_out(order))
    finally:
        for stream, old in zip(streams, before, strict=True):
            os.dup2(old, stream)
            os.close(old)


def _carry_out(text: str) -> int:
    order = order_of(text)
    if isinstance(order, CommandOrder):
        return run_command([*order.words])
    with make_reporter() as reporter:
        order.carry_out(reporter)
    return 0


def _end_with_parent() -> None:
    # Not through sys.stdin: a lock held in a daemon thread would break the interpreter's end.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
