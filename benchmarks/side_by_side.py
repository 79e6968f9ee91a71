"""Several trainings at once, as `iwae paper run --jobs N` and `iwae sweep --jobs N` do them, beside another build:

    python -m benchmarks.side_by_side --other CHECKOUT    # five minutes; --python for an environment of its own

`CHECKOUT` is a checkout of another commit, which must have `benchmarks/ours.py`. In each round both builds run `--jobs`
processes at once for some seconds, alternating: those of this one with their share of the cores, those of the other as
it starts them, which up to version 0.1 was with all cores each. `--other-shares` gives it shares too. Prints steps per
second of all processes together, and the median of the ratios of the rounds.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from iwae.runs.processes import divided_cores

CELLS = tuple((layers, k) for k in (1, 5, 50) for layers in (1, 2))
HERE = Path(__file__).parents[1]
# Reads how long to run, answers with the steps done in that time, until standard input ends.
SIDE = """
import sys, time
from benchmarks.ours import trainer
run = trainer(int(sys.argv[1]), int(sys.argv[2]))
run(1)
begin = time.perf_counter(); run(10); steps = max(1, int(1.0 / (time.perf_counter() - begin)))
print("ready", flush=True)
for line in sys.stdin:
    done, begin = 0, time.perf_counter()
    while (spent := time.perf_counter() - begin) < float(line):
        run(steps)
        done += steps
    print(done / spent, flush=True)
"""


def start(checkout: Path, python: str, layers: int, k: int, cores: Sequence[int]) -> subprocess.Popen[str]:
    """A process of a build that is ready to train, on these cores (none given: on all)."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout / "src"), str(checkout)])}
    return subprocess.Popen(
        [python, "-c", SIDE, str(layers), str(k)],
        cwd=checkout,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )


def speed(processes: Sequence[subprocess.Popen[str]], seconds: float) -> float:
    """Steps per second of processes that run at once."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
    return sum(float(_answer(process)) for process in processes)


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    if not (line := process.stdout.readline()):
        raise SystemExit(f"a process ended with status {process.wait()}")
    return line.strip()


def compare(
    builds: dict[str, tuple[Path, str, list[list[int]]]], layers: int, k: int, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Steps per second of each build, round by round. A build is its checkout, its Python and its processes' cores."""
    with contextlib.ExitStack() as stack:
        running: dict[str, list[subprocess.Popen[str]]] = {}
        for name, (checkout, python, shares) in builds.items():
            running[name] = [stack.enter_context(start(checkout, python, layers, k, cores)) for cores in shares]
            stack.callback(lambda those=running[name]: [process.kill() for process in those])
        for processes in running.values():
            assert {_answer(process) for process in processes} == {"ready"}
        found: dict[str, list[float]] = {name: [] for name in running}
        for number in range(rounds):
            for name in list(running) if number % 2 else list(running)[::-1]:
                found[name].append(speed(running[name], seconds))
    return found


def main() -> None:
    """Prints a line for every cell."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.side_by_side", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--other", type=Path, required=True, help="checkout of the other build")
    parser.add_argument("--python", default=sys.executable, help="Python with the other build's dependencies")
    parser.add_argument("--other-shares", action="store_true", help="give its processes their share of the cores too")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round and build")
    parser.add_argument("--cells", nargs="*", default=[f"{layers}:{k}" for layers, k in CELLS], help="layers:k")
    chosen = parser.parse_args()
    shares = divided_cores(chosen.jobs)
    theirs = shares if chosen.other_shares else [[] for _ in shares]
    builds = {"this": (HERE, sys.executable, shares), "other": (chosen.other.resolve(), chosen.python, theirs)}
    for cell in chosen.cells:
        layers, k = map(int, cell.split(":"))
        found = compare(builds, layers, k, chosen.rounds, chosen.seconds)
        ratios = [mine / other for mine, other in zip(found["this"], found["other"], strict=True)]
        medians = {name: statistics.median(speeds) for name, speeds in found.items()}
        print(
            f"{layers} layers, k = {k}, {chosen.jobs} processes: {medians['this']:.0f} steps/s, the other"
            f" {medians['other']:.0f}; ratio {statistics.median(ratios):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
