"""Memory and start-up, each figure from a process of its own: `python -m benchmarks.footprint PART` prints one."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = ("nothing", "training", "measuring")


def _nothing() -> dict[str, float]:
    import jax
    import jax.numpy as jnp

    jax.jit(lambda x: x + 1)(jnp.zeros(3)).block_until_ready()
    return {}


def _training() -> dict[str, float]:
    from benchmarks.ours import trainer

    run = trainer(1, 50)
    start = time.perf_counter()
    run(1)
    first = time.perf_counter() - start
    start = time.perf_counter()
    run(20)
    return {"compile_seconds": first - (time.perf_counter() - start) / 20}


def _measuring() -> dict[str, float]:
    from benchmarks.ours import measurer

    measurer(1, 5000, examples=20)(1)
    return {}


def part(name: str) -> dict[str, float]:
    """What one part took, in this process."""
    run: Callable[[], dict[str, float]] = {"nothing": _nothing, "training": _training, "measuring": _measuring}[name]
    found = run()
    return {**found, "peak_mib": peak_mib()}


def peak_mib() -> float:
    """The largest resident set of this process so far. Linux: getrusage's figure would include that of the parent,
    from before the program was loaded.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def measure(repeats: int = 5) -> dict[str, Any]:
    """All parts, and the seconds that `import iwae` and `iwae --help` take above starting Python: medians."""
    found: dict[str, Any] = {}
    for name in PARTS:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.footprint", name], check=True, capture_output=True, text=True
        )
        found[name] = json.loads(done.stdout.splitlines()[-1])
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "import iwae": [sys.executable, "-c", "import iwae"],
        "iwae --help": [sys.executable, "-c", "from iwae.cli import main; main(['--help'])"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=False, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    found["start_seconds"] = {name: statistics.median(values) for name, values in seconds.items()}
    return found


if __name__ == "__main__":
    print(json.dumps(part(sys.argv[1])))
