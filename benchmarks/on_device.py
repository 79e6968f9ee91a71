"""What `benchmarks.accelerator` asks of JAX on the device, in a process of its own."""

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import floor
from benchmarks.ours import dataset, trainer
from benchmarks.setting import BATCH, example_values, paper_model
from iwae.estimators.objective import make_estimator
from iwae.evaluation.annealed import ais
from iwae.evaluation.likelihood import likelihoods
from iwae.models.matmul import product
from iwae.training.optim import paper_adam
from iwae.training.step import LearningRates, TrainState, run_chunk

# Far above float32's rounding of sums of so many numbers, far below TF32's, whose operands keep 10 bits.
FLOAT32_ERROR = 2e-5
SAME_BOUND = 1e-5
SAME_WEIGHTS = 1e-4
STEPS = 20
# What a compiled program only names, without a kernel of its own.
NO_KERNEL = {"parameter", "get-tuple-element", "tuple", "constant", "bitcast", "while", "conditional", "call"}


def device() -> dict[str, Any]:
    """What JAX computes on, and the float32 products that it reaches there, in TFLOP/s."""
    size = 512 if jax.default_backend() == "cpu" else 8192
    operand = jnp.ones((size, size))
    multiply = jax.jit(lambda x: product(x, x))
    multiply(operand).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        multiply(operand).block_until_ready()
        times.append(time.perf_counter() - start)
    found = jax.devices()[0]
    return {"kind": found.device_kind, "count": len(jax.devices()), "tflops": 2 * size**3 / min(times) / 1e12}


def checks() -> dict[str, float]:
    """Relative differences: of a product from float64's, of L_50 and of the weights after some steps from the CPU's.

    Raises AssertionError where one is too large: figures of speed would be of something else.
    """
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, 1024, 1024)).astype(np.float32)
    exact = left.astype(np.float64) @ right
    found = np.asarray(jax.jit(product)(left, right))
    error = float(np.abs(found - exact).max() / np.abs(exact).max())
    assert error < FLOAT32_ERROR, f"products are off by {error:.1e}: TF32 is used"

    def bounds() -> np.ndarray:
        return likelihoods(paper_model(1), dataset(example_values()), num_samples=50, max_examples=100).log_likelihood

    def weights() -> np.ndarray:
        (state,), _, _ = _chunk([make_estimator("iwae", 5)])(STEPS)
        return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(state.model)])

    here = bounds(), weights()
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        there = bounds(), weights()
    bound, weight = (float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(here, there, strict=True))
    assert bound < SAME_BOUND, f"L_50 differs from the CPU's by {bound:.1e}"
    assert weight < SAME_WEIGHTS, f"weights after {STEPS} steps differ from the CPU's by {weight:.1e}"
    return {"product": error, "bound": bound, "weights": weight}


def _chunk(estimators: list[Any], layers: int = 1) -> Callable[[int], Any]:
    """Runs that many steps of so many models as one batch, always from the same weights."""
    model, optimizer = paper_model(layers), paper_adam()
    rows = jnp.asarray(example_values())
    states = tuple(TrainState.create(model, optimizer, seed) for seed in range(len(estimators)))
    how: dict[str, Any] = {"optimizer": optimizer, "batch_size": BATCH, "as_batch": len(estimators) > 1}

    def run(steps: int) -> Any:
        rate = LearningRates.constant(1e-3)
        found = run_chunk(states, rows, rate, jnp.int32(steps), estimators=tuple(estimators), **how)
        return jax.block_until_ready(found)

    return run


def trainer_of_many(num_layers: int, num_samples: int, runs: int) -> Callable[[int], None]:
    """Runs that many steps of several models as one batch, as seeds of one experiment are trained."""
    run = _chunk([make_estimator("iwae", num_samples)] * runs, num_layers)
    return lambda steps: run(steps) and None


def trainer_in_tf32(num_layers: int, num_samples: int) -> Callable[[int], None]:
    """The training step with products as the device has them by default: on NVIDIA's TF32. The product itself is
    replaced, so this needs a process in which no step was compiled before.
    """
    import iwae.models.networks.base as base

    base.product = lambda left, right, precision="float32": jnp.matmul(left, right)
    return trainer(num_layers, num_samples)


def work_of_a_step(num_layers: int, num_samples: int, seconds: float) -> dict[str, float]:
    """Kernels of a compiled step, and the share of its time that its matrix products alone would take at the device's
    best rate.
    """
    model, optimizer = paper_model(num_layers), paper_adam()
    state = TrainState.create(model, optimizer, 0)
    estimator = make_estimator("iwae", num_samples)
    rows, rate = jnp.asarray(example_values()), LearningRates.constant(1e-3)
    how: dict[str, Any] = {"estimators": (estimator,), "optimizer": optimizer, "batch_size": BATCH}
    lowered = run_chunk.lower((state,), rows, rate, jnp.int32(1), **how)
    operations = floor.operations(floor.products(model, num_samples, BATCH, training=True))
    return {
        "kernels": kernels(lowered.compile().compiled.as_text()),
        "share_of_products": operations / (device()["tflops"] * 1e12) / seconds,
    }


def kernels(program: str) -> int:
    """Operations that are launched in one round of the longest loop of an optimized program of XLA."""
    sizes: Counter[str] = Counter()
    name = ""
    for line in program.splitlines():
        if opened := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*-> .*\{\s*$", line):
            name = opened[1]
        elif found := re.match(r"\s+(?:ROOT )?%?[\w.\-]+ = .*?\s([a-z][a-z\-]*)\(", line):
            sizes[name] += found[1] not in NO_KERNEL
    bodies = re.findall(r"\bbody=%?([\w.\-]+)", program)
    return max((sizes[body] for body in bodies), default=0)


def measuring(tiny: bool) -> dict[str, float]:
    """Examples per second of L_5000, and of AIS with 16 chains of 100 steps, one layer."""
    examples, samples, steps = (10, 50, 5) if tiny else (2000, 5000, 100)
    model, data = paper_model(1), dataset(example_values())
    ways: dict[str, Callable[[], object]] = {
        "L_5000": lambda: likelihoods(model, data, num_samples=samples, max_examples=examples),
        "AIS": lambda: ais(model, data, indices=np.arange(examples), steps=steps),
    }
    found = {}
    for name, way in ways.items():
        way()
        start = time.perf_counter()
        way()
        found[name] = examples / (time.perf_counter() - start)
    return found
