#!/usr/bin/env bash
# jax.random.uniform and normal in bfloat16 know 128 different values. In float16 they know 1,024.
#
# Expected: draws as fine as the type: bfloat16 has about 16,000 values between 0 and 1.
# What happens: a draw is a random mantissa of 7 bits, so that uniform gives only multiples of 1/128, and 0 once in
# 128 draws. All that is made from it has 128 values too: normal's reach -2.89 to 2.52, and their mean is -0.012
# instead of 0. `bernoulli` with a bfloat16 probability of 0.001 is true 0.0078 of the time, eight times too often.
# For users: draw in float32 and convert afterwards. Mixed precision is where this comes in: `normal(key, shape,
# x.dtype)`, or probabilities that are the output of a bfloat16 network.
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
key, shape = jax.random.key(0), (1 << 20,)
for dtype, values in ((jnp.bfloat16, 128), (jnp.float16, 1024)):
    for name in ("uniform", "normal", "gumbel", "exponential"):
        draws = np.asarray(getattr(jax.random, name)(key, shape, dtype).astype(jnp.float32), np.float64)
        known = np.unique(draws)
        print(f"{dtype.__name__} {name}: {len(known)} values in {draws.size:,} draws,",
              f"{draws.min():.4f} to {draws.max():.4f}, mean {draws.mean():.4f}")
        assert len(known) == values, f"changed: {len(known)} values instead of {values}"
fine = np.unique(np.asarray(jax.random.uniform(key, shape)))
print(f"float32 uniform: {len(fine):,} values")
often = {t.__name__: float(jax.random.bernoulli(key, jnp.asarray(0.001, t), shape).mean())
         for t in (jnp.bfloat16, jnp.float16, jnp.float32)}
print("bernoulli(0.001) is true:", often)
assert abs(often["bfloat16"] - 1 / 128) < 0.001, "changed: bernoulli in bfloat16"
assert abs(often["float32"] - 0.001) < 0.0002, "changed: bernoulli in float32"
END
