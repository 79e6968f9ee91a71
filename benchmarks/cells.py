"""Measures everything and writes the tables of docs/speed.md: `make bench` (a quarter of an hour)."""

import argparse
import json
import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import floor, footprint
from benchmarks.setting import BATCH, paper_model
from benchmarks.tables import render, replace_between
from benchmarks.timing import alternate, ratio
from benchmarks.worker import Worker
from iwae.evaluation.chains import ROWS, TUNING_CHAINS, WARM_UP

CELLS = tuple((layers, k) for layers in (1, 2) for k in (1, 5, 50))
TORCH = {"PyTorch": (False, False), "PyTorch compiled": (True, False), "PyTorch compiled bfloat16": (True, True)}
TORCH["PyTorch bfloat16"] = (False, True)
# Ours otherwise: name, what it is compared with, objective, precision, and from which k on it is another thing.
VARIANTS = (
    ("ours DReG", "ours", "iwae:dreg", "float32", 2),
    ("ours DReG, 4 backward", "ours DReG", "iwae:dreg:backward=4", "float32", 5),
    ("ours bfloat16", "ours", "iwae", "bfloat16", 1),
)
EXAMPLES_AT_ONCE = 40
# PyTorch's rows at once are 2000, as ours, its fastest of 500, 1000, 2000 and 5000 here.
SAMPLES_AT_ONCE = 50
TEMPERATURES = 5
CLOSE = 1e-4


def training(layers: int, k: int) -> dict[str, Any]:
    """One cell: seconds per step of every side, after a check that both compute the same bound."""
    with Worker() as here, Worker() as there, Worker() as numpy:
        difference = there.call("benchmarks.torch_side.check_same_bound", layers, k)
        if difference > CLOSE:
            raise SystemExit(f"both sides compute different bounds: {difference:.1e} apart, {layers} layers, k={k}")
        shapes = floor.products(paper_model(layers), k, BATCH, training=True)
        sides = {"ours": here.side("ours", "benchmarks.ours.trainer", layers, k)}
        for name, _, word, precision, least in VARIANTS:
            if k >= least:
                sides[name] = here.side(name, "benchmarks.ours.trainer", layers, k, word, precision)
        for name, (compiled, bfloat16) in TORCH.items():
            sides[name] = there.side(name, "benchmarks.torch_side.trainer", layers, k, compiled, bfloat16)
        sides["floor, PyTorch"] = there.side("floor", "benchmarks.gemm.by_torch", shapes)
        sides["floor, NumPy"] = numpy.side("floor", "benchmarks.gemm.by_numpy", shapes)
        found = alternate(sides)
    return {"layers": layers, "k": k, "bound_difference": difference, **_summary(found, floor.operations(shapes))}


def measuring(layers: int, num_samples: int = 5000) -> dict[str, Any]:
    """L_5000: seconds per group of 40 examples."""
    # A whole group takes seconds: a tenth of its samples, times ten, is as good and alternates more often.
    part = 10
    samples, group = num_samples // part, EXAMPLES_AT_ONCE
    block = floor.products(paper_model(layers), SAMPLES_AT_ONCE, group, training=False)
    blocks = samples // SAMPLES_AT_ONCE
    torch = ("benchmarks.torch_side.measurer", layers, samples, group, SAMPLES_AT_ONCE)
    with Worker() as here, Worker() as there, Worker() as numpy:
        found = alternate(
            {
                "ours": here.side("ours", "benchmarks.ours.measurer", layers, samples, group),
                "PyTorch": there.side("PyTorch", *torch),
                "floor, PyTorch": there.side("floor", "benchmarks.gemm.by_torch", block, blocks),
                "floor, NumPy": numpy.side("floor", "benchmarks.gemm.by_numpy", block, blocks),
            }
        )
    found = {name: [part * s for s in seconds] for name, seconds in found.items()}
    operations = floor.operations(block) * blocks * part
    return {"layers": layers, "k": num_samples, "examples": group, **_summary(found, operations)}


def annealing(layers: int) -> dict[str, Any]:
    """AIS: seconds per temperature of 10 leapfrog steps, `ROWS` chains at once; and what 1,000 images with 16 chains of
    100 steps take by these, tuning included, beside L_5000 of 10,000 images.
    """
    leapfrogs, part = 10, 10
    shapes = floor.annealing(paper_model(layers), ROWS, leapfrogs)
    with Worker() as here, Worker() as there, Worker() as numpy:
        found = alternate(
            {
                "ours": here.side("ours", "benchmarks.ours.annealer", layers, TEMPERATURES, leapfrogs),
                "L": here.side("L", "benchmarks.ours.measurer", layers, 5000 // part, EXAMPLES_AT_ONCE),
                "floor, PyTorch": there.side("floor", "benchmarks.gemm.by_torch", shapes, TEMPERATURES),
                "floor, NumPy": numpy.side("floor", "benchmarks.gemm.by_numpy", shapes, TEMPERATURES),
            }
        )
    blocks = 1000 * 16 / ROWS * 100 + 1000 * TUNING_CHAINS / ROWS * (100 + WARM_UP)
    times = ratio(found, "ours", "L") * blocks / TEMPERATURES / (part * 10_000 / EXAMPLES_AT_ONCE)
    found = {name: [s / TEMPERATURES for s in seconds] for name, seconds in found.items() if name != "L"}
    return {"layers": layers, "over_importance": times, **_summary(found, floor.operations(shapes))}


def _summary(found: dict[str, list[float]], operations: int) -> dict[str, Any]:
    floors = [name for name in found if name.startswith("floor")]
    best = min(floors, key=lambda name: statistics.median(found[name]))
    theirs = [name for name in found if name.startswith("PyTorch")]
    full = [name for name in theirs if "bfloat16" not in name]
    # Like beside like: PyTorch in bfloat16 over ours in bfloat16.
    pairs = [(name, "ours bfloat16" if "bfloat16" in name else "ours") for name in theirs]
    pairs += [(name, to) for name, to, *_ in VARIANTS if name in found]
    best_full = min(full, key=lambda name: statistics.median(found[name]), default=None)
    return {
        "seconds": {name: statistics.median(seconds) for name, seconds in found.items()},
        "ratios": {f"{name} / {to}": ratio(found, name, to) for name, to in pairs},
        "best_float32": best_full,
        "over_floor": ratio(found, "ours", best),
        "floor": best,
        "floor_gflops": operations / statistics.median(found[best]) / 1e9,
    }


def main() -> None:
    """Runs what is asked for and writes the results and the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/benchmark.json"), help="where the figures go")
    parser.add_argument("--docs", type=Path, default=Path("docs/speed.md"), help="whose tables are written anew")
    parser.add_argument("--cells", nargs="*", default=[f"{layers}:{k}" for layers, k in CELLS], help="layers:k")
    chosen = parser.parse_args()
    record: dict[str, Any] = {
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": _processor()},
        "versions": {"python": platform.python_version(), "jax": version("jax"), "torch": version("torch")},
        "training": [],
        "measuring": [],
        "annealing": [],
    }
    for cell in chosen.cells:
        layers, k = map(int, cell.split(":"))
        record["training"].append(training(layers, k))
        print(json.dumps(record["training"][-1]), flush=True)
    for layers in (1, 2):
        record["measuring"].append(measuring(layers))
        print(json.dumps(record["measuring"][-1]), flush=True)
        record["annealing"].append(annealing(layers))
        print(json.dumps(record["annealing"][-1]), flush=True)
    record["footprint"] = footprint.measure()
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(record, indent=1) + "\n")
    replace_between(chosen.docs, "benchmark", render(record))
    print(f"Written: {chosen.output} and the tables of {chosen.docs}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    width = next((name for name in ("amx_tile", "avx512f", "avx2") if name in flags), "")
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name} {width}".strip()
