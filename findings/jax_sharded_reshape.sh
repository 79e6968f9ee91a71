#!/usr/bin/env bash
# Merging a divided axis with the one before it makes XLA send the whole array to every device.
#
# Expected: x [samples, batch, n] with the batch divided among devices, times a matrix that all of them have: a matrix
# product of each row, for which no device needs another's rows, however it is written.
# What happens: as jnp.matmul of the three axes, nothing is sent. As `x.reshape(samples * batch, n) @ w`, which many
# libraries write, the compiled program gathers all of x on every device (all-gather) and each computes all rows of the
# product; nobody is told. So too in the gradient of the weights: one product over both axes at once sends the sum
# alone (all-reduce), and the same after a reshape of both sides gathers whole arrays. A batch that comes first may be merged
# with what follows it: `x.reshape(batch * samples, n)` sends nothing.
# For users: with several samples per example keep the divided batch as the first axis, or do not merge axes
# (`jax.lax.dot_general` contracts both). Look for "all-gather" in `jitted.lower(...).compile().as_text()`.
# Versions: jax 0.10.2, jaxlib 0.10.2, numpy 2.4.6; 2 devices of one CPU. Date: 2026-11.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 ml-dtypes==0.6.0
JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=2 venv/bin/python -I - <<'END'
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

print("jax", jax.__version__)
mesh = Mesh(np.array(jax.devices()), ("devices",))


def sent(function, *arrays, divided):
    """The messages in the compiled program, when axis `divided` of every array but a matrix is divided."""
    axes = [None] * 3
    axes[divided] = "devices"
    placed = [
        jax.device_put(a, NamedSharding(mesh, PartitionSpec(*axes) if a.ndim == 3 else PartitionSpec())) for a in arrays
    ]
    text = jax.jit(function).lower(*placed).compile().as_text()
    return sorted(set(re.findall(r"= \S+ (all-gather|all-reduce|all-to-all|collective-permute)\(", text)))


samples, batch, n, m = 4, 6, 8, 5
x, y, w = jnp.ones((samples, batch, n)), jnp.ones((samples, batch, m)), jnp.ones((n, m))
first = jnp.ones((batch, samples, n))
both = lambda a, b: jax.lax.dot_general(a, b, (((0, 1), (0, 1)), ((), ())))
found = {
    "matmul": sent(jnp.matmul, x, w, divided=1),
    "merged rows": sent(lambda x, w: x.reshape(-1, n) @ w, x, w, divided=1),
    "merged rows, batch first": sent(lambda x, w: x.reshape(-1, n) @ w, first, w, divided=0),
    "sum over both axes": sent(both, x, y, divided=1),
    "sum over merged rows": sent(lambda x, y: x.reshape(-1, n).T @ y.reshape(-1, m), x, y, divided=1),
}
for name, messages in found.items():
    print(f"{name}: {', '.join(messages) or 'nothing'} is sent")
assert found["matmul"] == [] and found["merged rows, batch first"] == [], "changed: something is sent"
assert found["sum over both axes"] == ["all-reduce"], "changed: more than the sum is sent"
for name in ("merged rows", "sum over merged rows"):
    assert "all-gather" in found[name], "changed: merged rows are no longer gathered"
END
