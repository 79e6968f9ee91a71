#!/usr/bin/env bash
# jax.random.fold_in(key, i) is the very key that jax.random.split(key, n)[i] is, for every n > i.
#
# Expected: `split` and `fold_in` derive keys in two different ways, so that one key may serve both: some keys by
# `split` for the parts of a program, others by `fold_in` with the step's number.
# What happens: with the default generator (threefry2x32, jax_threefry_partitionable, the default) the two are the
# same function. The noise of step 0 is then the same as that of the first part. "rbg" keys do the same. With
# jax_threefry_partitionable off, and for "unsafe_rbg" keys, the keys tried here differ.
# For users: a key that was split must not be folded as well. Split first, and fold only into one of the parts.
# JAX's rule that a key is used once says so too, but nothing warns.
# Versions: jax 0.10.2, jaxlib 0.10.2, numpy 2.4.6. Date: 2026-11.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 ml-dtypes==0.6.0
JAX_PLATFORMS=cpu venv/bin/python -I - <<'END'
import jax
import jax.numpy as jnp
import numpy as np

print("jax", jax.__version__, "partitionable", jax.config.jax_threefry_partitionable)
data = jax.random.key_data


def share(key, n):
    """The share of i < n for which split(key, n)[i] is fold_in(key, i)."""
    folded = jnp.stack([data(jax.random.fold_in(key, i)) for i in range(n)])
    return float((data(jax.random.split(key, n)) == folded).all(axis=1).mean())


for seed in (0, 1, 2026):
    for n in (2, 3, 100):
        assert share(jax.random.key(seed), n) == 1, "changed: fold_in and split differ"
print("threefry: equal for every i < n, n = 2, 3, 100, and 3 seeds")
others = {name: share(jax.random.key(0, impl=name), 50) for name in ("rbg", "unsafe_rbg")}
with jax.threefry_partitionable(False):
    others["threefry, not partitionable"] = share(jax.random.key(0), 50)
print("share of equal keys:", others)
assert list(others.values()) == [1, 0, 0], "changed: another generator"

key = jax.random.key(7)
for_weights, _ = jax.random.split(key)
weights, noise = jax.random.normal(for_weights, (3,)), jax.random.normal(jax.random.fold_in(key, 0), (3,))
print("initial weights by split:", weights, "noise of step 0 by fold_in:", noise)
assert np.array_equal(weights, noise), "changed: the draws differ"
END
