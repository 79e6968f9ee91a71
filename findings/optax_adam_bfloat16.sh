#!/usr/bin/env bash
# optax.adam on bfloat16 parameters never forgets a large gradient: its second moment does not decay.
#
# Expected: the second moment is a moving average over about 1 / (1 - b2) = 1,000 steps.
# What happens: the moments have the parameters' type, and b2 = 0.999 is 1.0 in bfloat16. What once came into the
# second moment stays for good. After one gradient of 100, then 10,000 gradients of 1, float32 steps by 0.001 (the
# learning rate) and bfloat16 by a third of it, and so it stays. `mu_dtype` changes the first moment only.
# For users: keep the parameters that Adam sees in float32 and compute in bfloat16, or take b2 = 0.99.
# Versions: optax 0.2.8, jax 0.10.2, jaxlib 0.10.2, numpy 2.4.6. Date: 2026-11.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 ml-dtypes==0.6.0
JAX_PLATFORMS=cpu venv/bin/python -I - <<'END'
import jax
import jax.numpy as jnp
import optax

print("optax", optax.__version__, "jax", jax.__version__, "0.999 in bfloat16 is", jnp.asarray(0.999, jnp.bfloat16))


def after(dtype, steps, gradient, **options):
    """Adam's last step and second moment after one gradient of 100 and `steps` further ones."""
    adam = optax.adam(1e-3, **options)
    params = jnp.zeros((), dtype)
    first = adam.update(jnp.asarray(100, dtype), adam.init(params), params)

    def step(_, carry):
        return adam.update(jnp.asarray(gradient, dtype), carry[1], params)

    update, state = jax.jit(lambda carry: jax.lax.fori_loop(0, steps, step, carry))(first)
    return float(update), float(state[0].nu)


for dtype, options in ((jnp.float32, {}), (jnp.bfloat16, {}), (jnp.bfloat16, {"mu_dtype": jnp.float32})):
    _, kept = after(dtype, 10_000, 0, **options)
    update, nu = after(dtype, 10_000, 1, **options)
    print(f"{dtype.__name__} {options}: after 10,000 gradients of 0 the second moment is {kept:.3g};",
          f"after 10,000 of 1 it is {nu:.3g} and the step {update:.3g}")
    if dtype == jnp.float32:
        assert kept < 0.001 and abs(update + 1e-3) < 2e-5, "changed: float32"
    else:
        assert kept > 9.9 and abs(update) < 4e-4, "changed: bfloat16 forgets"
_, kept = after(jnp.bfloat16, 10_000, 0, b2=0.99)
print(f"bfloat16 with b2 = 0.99: after 10,000 gradients of 0 the second moment is {kept:.3g}")
assert kept < 0.001, "changed: b2 = 0.99 does not forget"
END
