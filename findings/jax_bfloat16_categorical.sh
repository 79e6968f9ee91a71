#!/usr/bin/env bash
# jax.random.categorical with bfloat16 logits prefers the first categories, even when all logits are equal.
#
# Expected: equal logits give a uniform index.
# What happens: the index is the argmax of logits plus Gumbel noise, and the noise has the logits' type. In bfloat16
# it has 128 values, so that the largest is drawn by several categories, and argmax takes the first of them. Of
# 1,000 equal categories the first 100 get 54 percent of the draws and the last 100 get 0.1 percent. With 100
# categories the first ten get 14 percent. float16 (1,024 values) does it too: 15 and 7 percent of 1,000.
# For users: convert logits to float32 before `categorical`. This meets resampling by log weights (sampling
# importance resampling, particle filters, the choice of one of k samples) in mixed precision.
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

print("jax", jax.__version__)
shares = {}
for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
    for n in (100, 1000):
        index = np.asarray(jax.random.categorical(jax.random.key(0), jnp.zeros(n, dtype), shape=(20_000,)))
        shares[dtype.__name__, n] = first, last = (index < n / 10).mean(), (index >= n * 9 / 10).mean()
        print(f"{dtype.__name__}, {n} equal categories: first tenth {first:.4f}, last tenth {last:.4f} of the draws")
first, last = shares["bfloat16", 1000]
assert first > 0.4 and last < 0.01, "changed: bfloat16 is no longer so biased"
first, last = shares["float16", 1000]
assert first > 0.13 and last < 0.08, "changed: float16 is no longer biased"
first, last = shares["float32", 1000]
assert abs(first - 0.1) < 0.01 and abs(last - 0.1) < 0.01, "changed: float32 is biased"
END
