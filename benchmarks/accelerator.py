"""Everything that is asked of an accelerator, in at most eight minutes: `python -m benchmarks.accelerator`.

It downloads nothing, and writes its figures after every part, so that a run that is cut off has left what it found.
JAX and PyTorch each work in a process of their own. `--tiny` tries every part on any device, a CPU too; its figures
mean nothing.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.setting import example_values
from benchmarks.tables import render_accelerator, replace_between
from benchmarks.timing import alternate, ratio
from benchmarks.worker import Worker

CELLS = tuple((layers, k) for layers in (1, 2) for k in (1, 5, 50))
TOGETHER = (8, 24)
BUDGET_SECONDS = 480.0
# What is kept for the part that takes what is left, training, and for writing.
TRAINING_SECONDS = 150.0
SHORT_TESTS = ("tests/test_bounds.py", "tests/models/test_vae.py", "tests/training/test_optim.py")
TESTS_SECONDS = 60


def main() -> int:
    """Runs the parts in order, each in the time that is left, and writes what they found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/accelerator"), help="where figures and weights go")
    parser.add_argument("--docs", type=Path, help="a page whose table is written anew, such as docs/speed.md")
    parser.add_argument("--seconds", type=float, default=BUDGET_SECONDS, help="time for all parts together")
    parser.add_argument("--tiny", action="store_true", help="one small cell, few steps: to try the parts")
    parser.add_argument("--datasets-dir", type=Path, help="where MNIST is (default: example values are trained on)")
    chosen = parser.parse_args()
    # Both libraries hold memory of one device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    clock = _Clock(chosen.seconds)
    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / "accelerator.json"
    record: dict[str, Any] = {"versions": _versions(), "tiny": chosen.tiny}
    cells = ((1, 5),) if chosen.tiny else CELLS
    together = (2,) if chosen.tiny else TOGETHER
    parts: dict[str, Callable[[Worker], Any]] = {
        "device": lambda here: here.call("benchmarks.on_device.device"),
        "checks": lambda here: {**here.call("benchmarks.on_device.checks"), "tests": _tests()},
        "training": lambda here: _each_cell(here, cells, together, clock),
        "precision": lambda here: [_precision(here, *cell, clock) for cell in (cells if chosen.tiny else CELLS[2::3])],
        "measuring": lambda here: here.call("benchmarks.on_device.measuring", chosen.tiny),
        "trained": lambda _: _train_fast(
            chosen.output, chosen.datasets_dir, 20.0 if chosen.tiny else clock.left(keep=20.0), cells
        ),
    }
    failed = False
    with Worker() as here:
        for name, part in parts.items():
            start = time.monotonic()
            try:
                record[name] = part(here)
            except Exception as error:
                # What the other parts find is worth having.
                record[name], failed = {"failed": f"{type(error).__name__}: {error}"[:2000]}, True
            record.setdefault("seconds", {})[name] = round(time.monotonic() - start, 1)
            path.write_text(json.dumps(record, indent=1) + "\n")
            print(f"{name}: {json.dumps(record[name])[:1500]}", flush=True)
    table = render_accelerator(record)
    print(table)
    if chosen.docs is not None:
        replace_between(chosen.docs, "accelerator", table)
    return 1 if failed else 0


class _Clock:
    """The time that all parts share."""

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds

    def left(self, keep: float = 0.0) -> float:
        return max(0.0, self._end - time.monotonic() - keep)


def _versions() -> dict[str, str]:
    names = [name for name in ("iwae", "jax", "jaxlib", "torch", "numpy") if find_spec(name) is not None]
    return {"python": sys.version.split()[0], **{name: version(name) for name in names}}


def _tests() -> str:
    """A short form of the tests on the device: what pytest says in its last line."""
    if find_spec("pytest") is None or find_spec("hypothesis") is None:
        return "not run: pytest and hypothesis are not installed"
    command = [sys.executable, "-m", "pytest", "-q", "-x", *SHORT_TESTS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TESTS_SECONDS)
    except subprocess.TimeoutExpired:
        return f"not done in {TESTS_SECONDS} s"
    return (done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]])[-1]


def _each_cell(
    here: Worker, cells: tuple[tuple[int, int], ...], together: tuple[int, ...], clock: _Clock
) -> list[dict[str, Any]]:
    """Steps per second of one run, of several as one batch, and of PyTorch in three ways; cells that the time does not
    reach are left out.
    """
    found = []
    for layers, k in cells:
        if clock.left(TRAINING_SECONDS) == 0.0:
            break
        sides = {"ours": here.side("ours", "benchmarks.ours.trainer", layers, k)}
        for runs in together:
            name = f"{runs} runs"
            sides[name] = here.side(name, "benchmarks.on_device.trainer_of_many", layers, k, runs)
        with Worker() as there:
            ways = there.call("benchmarks.torch_side.ways") if find_spec("torch") else {}
            for name, way in ways.items():
                sides[name] = there.side(name, "benchmarks.torch_side.trainer", layers, k, *way)
            times = alternate(sides, rounds=5, seconds=0.2)
        medians = {name: sorted(seconds)[len(seconds) // 2] for name, seconds in times.items()}
        found.append(
            {
                "layers": layers,
                "k": k,
                "steps_per_second": {name: 1.0 / value for name, value in medians.items()},
                "ratios": {name: ratio(times, name, "ours") for name in ways},
                **here.call("benchmarks.on_device.work_of_a_step", layers, k, medians["ours"]),
            }
        )
    return found


def _precision(here: Worker, layers: int, k: int, clock: _Clock) -> dict[str, Any]:
    """A step in bfloat16, and one whose float32 products are rounded to TF32, beside float32."""
    if clock.left(TRAINING_SECONDS) == 0.0:
        return {"layers": layers, "k": k, "ratios": {}}
    with Worker() as rounded:
        sides = {
            "float32": here.side("float32", "benchmarks.ours.trainer", layers, k),
            "bfloat16": here.side("bfloat16", "benchmarks.ours.trainer", layers, k, "iwae", "bfloat16"),
            "TF32": rounded.side("TF32", "benchmarks.on_device.trainer_in_tf32", layers, k),
        }
        times = alternate(sides, rounds=5, seconds=0.2)
    return {"layers": layers, "k": k, "ratios": {name: ratio(times, name, "float32") for name in sides}}


def _train_fast(
    output: Path, datasets_dir: Path | None, seconds: float, cells: tuple[tuple[int, int], ...]
) -> dict[str, Any]:
    """`--schedule fast` of the paper's six cells at once, a process each, for as long as there is time. The runs are
    kept in `output` and can be continued.
    """
    if datasets_dir is None:
        values = example_values()
        data = output / "example.npz"
        np.savez(data, train=values, test=values[:100])
        dataset, place = str(data), []
    else:
        dataset, place = "mnist", ["--datasets-dir", str(datasets_dir)]
    options = ["--dataset", dataset, "--model", "iwae", "--schedule", "fast", "--test-samples", "100", *place]
    runs, processes = {}, []
    for layers, k in cells:
        run = output / f"iwae-k{k}-{layers}layer"
        command = [sys.executable, "-m", "iwae", "train", *options, "--k", str(k), "--layers", str(layers)]
        with (output / f"{run.name}.log").open("w") as log:
            process = subprocess.Popen([*command, "--run-dir", str(run)], stdout=log, stderr=subprocess.STDOUT)
        runs[f"{layers} layers, k={k}"] = run
        processes.append(process)
    start = time.monotonic()
    while any(process.poll() is None for process in processes) and time.monotonic() < start + seconds:
        time.sleep(0.5)
    seconds = time.monotonic() - start
    # They save, and can be continued.
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
    return {"dataset": dataset, "runs": {name: _reached(run, seconds) for name, run in runs.items()}}


def _reached(run: Path, seconds: float) -> dict[str, Any]:
    """Epochs done, and the hours that all of them would take beside the others at this speed, the start included."""
    try:
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        total = sum(stage["epochs"] for stage in json.loads((run / "run.json").read_text())["schedule"])
    except (OSError, ValueError, IndexError):
        return {"epochs": 0}
    hours = seconds / last["epoch"] * total / 3600
    return {"epochs": last["epoch"], "of": total, "bound": last["bound"], "hours": hours}


if __name__ == "__main__":
    sys.exit(main())
