"""A training loop with Optax: an estimate is a loss and its gradient, as every optimizer of Optax wants them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import iwae

rng = np.random.default_rng(0)
rows = (rng.random((400, 20)) < rng.random((4, 20))[rng.integers(4, size=400)]).astype(np.uint8)
model = iwae.create_model(rows, iwae.Architecture(20, latent=(3,), hidden=((32,),)))
estimator = iwae.make_estimator("iwae:dreg", k=8)
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(3e-3, 200)))
state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))


@eqx.filter_jit
def step(model, state, batch, key):
    data_key, model_key = jax.random.split(key)
    # Grey values would be binarized here; bits stay as they are.
    estimate = estimator(model, model.prepare(batch, data_key), model_key)
    updates, state = optimizer.update(estimate.gradient, state, eqx.filter(model, eqx.is_inexact_array))
    return eqx.apply_updates(model, updates), state, estimate.value


losses = []
for number in range(200):
    batch = jnp.asarray(rows[20 * (number % 20) :][:20])
    model, state, loss = step(model, state, batch, jax.random.fold_in(jax.random.key(0), number))
    losses.append(float(loss))
print(f"loss: {np.mean(losses[:20]):.2f} at the beginning, {np.mean(losses[-20:]):.2f} nats at the end")
