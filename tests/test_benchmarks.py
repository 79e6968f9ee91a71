"""The benchmark's own arithmetic: a floor that counts what a step needs, tables that say what was measured."""

import json
import os
import statistics
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from benchmarks import floor, growth, side_by_side
from benchmarks.on_device import kernels
from benchmarks.setting import BATCH, paper_model
from benchmarks.tables import marks, render, render_accelerator, replace_between
from benchmarks.timing import ratio
from benchmarks.worker import Worker

from iwae.estimators.gradients import weighted_gradient
from iwae.estimators.objective import Objective
from iwae.runs.processes import divided_cores

CELL = {
    "layers": 1,
    "k": 50,
    "seconds": {"ours": 0.014, "PyTorch": 0.021, "floor, NumPy": 0.011},
    "ratios": {"PyTorch / ours": 1.5, "ours DReG / ours": 1.01},
    "over_floor": 1.27,
    "floor": "floor, NumPy",
    "examples": 40,
}
RECORD = {
    "machine": {"cores": 2, "processor": "some avx2"},
    "versions": {"jax": "1", "torch": "2"},
    "training": [CELL],
    "measuring": [CELL],
    "annealing": [{**CELL, "over_importance": 0.5}],
    "footprint": {
        "nothing": {"peak_mib": 200.0},
        "training": {"peak_mib": 700.0, "compile_seconds": 4.0},
        "measuring": {"peak_mib": 300.4},
        "start_seconds": {"python": 0.02, "import iwae": 0.12, "iwae --help": 0.6},
    },
}


def test_tables_are_written_between_the_marks_and_nowhere_else(tmp_path):
    page = tmp_path / "speed.md"
    start, end = marks("benchmark")
    page.write_text(f"before\n{start}\nold\n{end}\nafter\n")
    replace_between(page, "benchmark", render(RECORD))
    text = page.read_text()
    assert text == f"before\n{start}\n{render(RECORD)}{end}\nafter\n"
    assert "| 1 | 50 | 14.00 ms | 1.27 | 1.50 | 1.01 |" in text
    assert "| peak memory of training, 1 layer, k = 50 | 500 MiB |" in text
    assert "| `import iwae` | 0.10 s |" in text
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="has no place for the tables"):
        replace_between(page, "benchmark", render(RECORD))


def test_ratios_are_medians_of_rounds_and_not_of_sides():
    found = {"a": [1.0, 4.0, 30.0], "b": [1.0, 2.0, 10.0]}
    assert ratio(found, "a", "b") == statistics.median([1.0, 2.0, 3.0])


@pytest.mark.parametrize("name", ["benchmark", "accelerator"])
def test_the_documents_tables_have_a_place(name):
    text = (Path(__file__).parents[1] / "docs" / "speed.md").read_text()
    start, end = marks(name)
    assert text.index(start) < text.index(end)


def test_the_accelerators_table_has_what_was_found_and_not_what_failed():
    cell = {"layers": 1, "k": 5, "steps_per_second": {"ours": 8000.0, "8 runs": 3000.4}, "kernels": 40}
    record = {
        "versions": {"jax": "1"},
        "device": {"kind": "some chip", "tflops": 50.0},
        "training": [{**cell, "ratios": {}, "share_of_products": 0.1}],
        "precision": {"failed": "out of memory"},
        "measuring": {"failed": "out of memory"},
        "trained": {"dataset": "mnist", "runs": {"a": {"epochs": 80, "of": 800, "hours": 0.5}, "b": {"epochs": 0}}},
    }
    table = render_accelerator(record)
    assert "some chip, 50.0 TFLOP/s" in table
    assert "| 1 | 5 | 8,000 | 3,000 | 40 | 0.10 |" in table
    assert "| a | 80 of 800 | 0.50 |" in table
    assert "| b |" not in table
    assert "memory" not in table


def test_kernels_are_counted_in_the_loop_and_products_not_twice():
    """Ten rounds of one product and one sum: two kernels at most, whatever XLA fuses."""
    loop = jax.jit(lambda x: jax.lax.fori_loop(0, 10, lambda _, y: jnp.sin(y @ x), x))
    once = jax.jit(lambda x: jax.lax.fori_loop(0, 10, lambda _, y: jnp.sin(y), x))
    x = jnp.ones((64, 64))
    found, fewer = (kernels(str(program.lower(x).compile().as_text())) for program in (loop, once))
    assert 1 <= fewer < found <= fewer + 3


@pytest.mark.parametrize("layers", [1, 2])
def test_the_floor_is_what_the_compiler_counts_in_products(layers):
    """A step's own operations are the products of the floor and a few per cent of elementwise work."""
    model, k = paper_model(layers), 50
    from iwae.estimators.objective import make_estimator

    estimator = make_estimator(Objective("iwae", k))
    x = jnp.zeros((BATCH, model.visible))
    noise = model.draw_noise(jax.random.key(0), k, BATCH)

    def gradient(model):
        return weighted_gradient(model, x, noise, estimator.coefficients, estimator.derivative)  # pyright: ignore

    costs = jax.jit(gradient).lower(model).compile().cost_analysis()
    assert costs is not None
    operations = floor.operations(floor.products(model, k, BATCH, training=True))
    assert 1.0 < costs["flops"] / operations < 1.1


@pytest.mark.parametrize("layers", [1, 2])
def test_the_floor_of_annealing_is_what_the_compiler_counts_in_products(layers):
    model, rows = paper_model(layers), 256
    x = jnp.zeros((rows, model.visible))
    latents = tuple(jnp.zeros((rows, units)) for units in model.latent)

    def density(h):
        above = zip(model.encoder[1:], h[1:], h[:-1], strict=True)
        return jnp.sum(model.log_joint(x, h)) + sum(jnp.sum(layer.log_prob(value, to)) for layer, value, to in above)

    costs = jax.jit(jax.grad(density)).lower(latents).compile().cost_analysis()
    assert costs is not None
    operations = floor.operations(floor.annealing(model, rows, 1))
    assert 1.0 < costs["flops"] / operations < 1.1


@pytest.mark.parametrize("layers", [1, 2])
def test_both_sides_compute_the_same_bound(layers):
    pytest.importorskip("torch", reason="the benchmark's PyTorch is not installed here")
    from benchmarks import torch_side

    assert torch_side.check_same_bound(layers, 5) < 1e-4


def test_workers_are_processes_of_their_own_that_time_what_they_do():
    with Worker() as one, Worker() as other:
        assert len({os.getpid(), *(worker.call("os.getpid") for worker in (one, other))}) == 3
        assert one.side("real", "operator.attrgetter", "real")(3) > 0.0
        one.side("product", "benchmarks.gemm.by_numpy", [(2, 3, 4)], 2)(1)
        # What they are for: that JAX's is free of PyTorch, and NumPy's of both.
        other.side("step", "benchmarks.ours.trainer", 1, 1)
        modules = [worker.call("builtins.eval", "set(__import__('sys').modules)") for worker in (one, other)]
        assert not {"torch", "jax"} & modules[0]
        assert "jax" in modules[1]
        assert "torch" not in modules[1]


@pytest.mark.parametrize("name", ["nothing", "training"])
def test_memory_is_that_of_a_process_of_its_own(name):
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.footprint", name],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["peak_mib"] > 50


def test_powers_of_growth_are_those_of_the_points():
    points = [{"k": k, "milliseconds": 3.0 * k**2, "mib": 100.0} for k in (1, 10, 1000)]
    assert growth.exponents("k", points, "milliseconds") == pytest.approx([2.0, 2.0])
    assert growth.fitted("k", points, "milliseconds") == pytest.approx(2.0)
    assert growth.fitted("k", points, "mib") == pytest.approx(0.0, abs=1e-9)
    assert "| 1,000 | 3000000.00 | 2.00 | 100 | 0.00 |" in growth.render({"k": points})


def test_a_point_of_growth_is_measured_at_its_sizes():
    with Worker() as process:
        found = process.call("benchmarks.growth.point", {"k": 2, "batch": 3, "dimensions": 9, "rows": 50, "layers": 2})
    assert found["milliseconds"] > 0
    assert found["mib"] > 0


@pytest.mark.slow
def test_two_builds_run_side_by_side():
    shares = divided_cores(2)
    builds = {name: (side_by_side.HERE, sys.executable, cores) for name, cores in (("a", shares), ("b", [[], []]))}
    found = side_by_side.compare(builds, 1, 1, rounds=2, seconds=0.1)
    assert {name: len(speeds) for name, speeds in found.items()} == {"a": 2, "b": 2}
    assert all(speed > 0 for speeds in found.values() for speed in speeds)
