"""One run trained by several processes: what a step costs on paper, and on this machine with 1, 2 and 4 processes.

python -m benchmarks.distributed paper      # the table of docs/dev/distributed.md
python -m benchmarks.distributed measure    # two minutes on a quiet machine, each process on one core
"""

import itertools
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import time

NETWORKS = {"paper, 1 layer": (217_300, 207_984), "4096+4096, 256 units": (22_095_360, 21_045_520)}
"""Weights of the encoder and of the decoder, of images of 784 pixels."""
LINKS = {"400 Gb/s, 5 us": (50e9, 5e-6), "25 Gb/s, 20 us": (3.1e9, 20e-6)}
"""Bytes a second, and the seconds that a message takes on its way."""
FLOPS = 10e12
WORKLOADS = ((20, 50), (4096, 50))
MEASURED, BATCHES, K = (1, 2, 4), (20, 200), 50
CHUNK, CHUNKS, SUMS = 5, 9, 50


def step_flops(encoder: int, decoder: int, batch: int, k: int) -> float:
    """Forwards 2 for each weight and row, backwards twice that; the decoder has k rows for each of the encoder's."""
    return 6.0 * batch * (encoder + k * decoder)


def all_reduce_bytes(weights: int, devices: int) -> float:
    """What each device sends in a step: 2 (n - 1) / n of the float32 gradient."""
    return 8.0 * weights * (devices - 1) / devices


def step_seconds(weights: int, flops: float, devices: int, bandwidth: float, latency: float) -> float:
    """Each device's share of the products, then the sum of the gradients over a tree."""
    waits = 2 * math.ceil(math.log2(devices)) * latency if devices > 1 else 0.0
    return flops / devices / FLOPS + waits + all_reduce_bytes(weights, devices) / bandwidth


def paper() -> None:
    """Prints the steps' seconds on 1, 8 and 64 devices, and how many times as fast 64 are."""
    for network, (encoder, decoder) in NETWORKS.items():
        weights = encoder + decoder
        print(f"{network}: {weights:,} weights, {all_reduce_bytes(weights, 64) / 1e6:.1f} MB a step from each of 64")
        for batch, k in WORKLOADS:
            flops = step_flops(encoder, decoder, batch, k)
            for link, (bandwidth, latency) in LINKS.items():
                one, *more = (step_seconds(weights, flops, n, bandwidth, latency) for n in (1, 8, 64))
                times = ", ".join(f"{1e3 * seconds:.2f}" for seconds in (one, *more))
                print(f"  batch {batch}, k={k}, {link}: {times} ms on 1, 8, 64; {one / more[-1]:.1f} times as fast")


def measure() -> None:
    """Prints the seconds of a step with 1, 2 and 4 processes, beside what the model of `paper` expects: the share of
    one process's step, on as many cores as there are, and the sum of the gradients, measured alone.
    """
    cores = sorted(os.sched_getaffinity(0))
    alone = {}
    for count in MEASURED:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [sys.executable, "-m", "benchmarks.distributed", "process", str(port), str(count)]
        own = [[str(index), str(cores[index % len(cores)])] for index in range(count)]
        processes = [subprocess.Popen([*words, *one], stdout=subprocess.PIPE, text=True) for one in own]
        said = [process.communicate()[0] for process in processes]
        if any(process.returncode for process in processes):
            sys.exit(f"{count} processes: one of them failed")
        found = json.loads(said[0].splitlines()[-1])
        for batch, seconds in found["steps"].items():
            if count == 1:
                alone[batch] = seconds
            of_the_sum = found["sum"] if count > 1 else 0.0
            expected = alone[batch] / min(count, len(cores)) + of_the_sum
            times = f"{1e3 * seconds:.1f} ms a step, {1e3 * expected:.1f} expected ({1e3 * of_the_sum:.1f} the sum)"
            print(f"{count} processes, batch {batch}, k={K}: {times}", flush=True)


def process(port: int, count: int, index: int, core: int) -> None:
    """One of the processes, on one core; prints what it found as JSON."""
    os.sched_setaffinity(0, [core])
    import jax
    import jax.numpy as jnp
    import numpy as np

    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
    import iwae
    from benchmarks.setting import example_values
    from iwae.devices import everywhere
    from iwae.training.loop import train_together
    from iwae.training.optim import paper_adam
    from iwae.training.schedule import Stage
    from iwae.training.step import TrainState

    weights = sum(NETWORKS["paper, 1 layer"])
    given = everywhere(jnp.ones(weights, jnp.float32))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("share",))
    add = jax.jit(
        jax.shard_map(
            lambda x: jax.lax.psum(x * (1 + jax.lax.axis_index("share")), "share"),
            mesh=mesh,
            in_specs=jax.sharding.PartitionSpec(),
            out_specs=jax.sharding.PartitionSpec(),
        )
    )
    times = []
    for _ in range(SUMS):
        start = time.perf_counter()
        jax.block_until_ready(add(given))
        times.append(time.perf_counter() - start)
    found = {"sum": statistics.median(times[1:]), "steps": {}}
    data = iwae.Dataset.from_arrays((example_values() > 127).astype(np.uint8))
    for batch in BATCHES:
        optimizer = paper_adam(batch)
        state = TrainState.create(iwae.create_model(data), optimizer, 0)
        times, start = [], time.perf_counter()
        chunks = train_together(
            [state],
            data,
            (Stage(1000, 1e-3),),
            [iwae.make_estimator("iwae", k=K)],
            optimizer,
            batch_size=batch,
            agree=lambda _: CHUNK,
        )
        for _ in itertools.islice(chunks, CHUNKS):
            times.append((time.perf_counter() - start) / CHUNK)
            start = time.perf_counter()
        found["steps"][batch] = statistics.median(times[1:])
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["process"]:
        process(*map(int, sys.argv[2:]))
    else:
        {"paper": paper, "measure": measure}[sys.argv[1]]()
