"""A model whose minibatches several devices share: the numbers of one, and one sum in each step."""

import os
import subprocess
import sys

SCRIPT = """
import re
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import iwae
from iwae.devices import everywhere
from iwae.training.loop import train_together
from iwae.training.optim import paper_adam
from iwae.training.schedule import Stage
from iwae.training.step import LearningRates, TrainState, run_chunk

rows = np.random.default_rng(0).random((60, 6)).astype(np.float32)
grey = iwae.Dataset.from_arrays(rows)
binary = iwae.Dataset.from_arrays((rows > 0.5).astype(np.uint8))
numeric = iwae.Dataset.from_arrays(rows, likelihood="gaussian")
optimizer = paper_adam(12)
for data, tolerance, estimator in (
    (grey, 1e-5, iwae.make_estimator("iwae:dreg", k=3)),
    (binary, 1e-2, iwae.make_estimator("iwae", k=3, precision="bfloat16")),
    (numeric, 1e-5, iwae.make_estimator("elbo", k=2)),
):
    model = iwae.create_model(data, iwae.Architecture(6, (4, 3), ((8,), (5,))), seed=1)
    state = TrainState.create(model, optimizer, 1)
    found = []
    for agree in (None, lambda steps: min(steps, 4)):
        given = [state], data, (Stage(2, 1e-2),), [estimator], optimizer
        *_, (last,) = train_together(*given, batch_size=12, agree=agree)
        assert last.step == 10
        assert len(last.state.step.sharding.device_set) == 1
        found.append(last)
    one, shared = found
    np.testing.assert_allclose(one.bound, shared.bound, rtol=tolerance)
    leaves = (jax.tree.leaves(eqx.filter(own.state.model, eqx.is_inexact_array)) for own in found)
    for mine, theirs in zip(*leaves, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=tolerance * np.max(np.abs(mine)), rtol=0)
    arrays = everywhere(
        ((state,), jnp.asarray(data.train), LearningRates.constant(1e-3), jnp.int32(3), (jnp.arange(60),))
    )
    how = {"estimators": everywhere((estimator,)), "optimizer": optimizer, "batch_size": 12, "data_parallel": True}
    program = run_chunk.lower(*arrays, **how).compile().compiled.as_text()
    sent = re.findall(r"(all-reduce|all-gather|collective-permute|all-to-all|reduce-scatter)[-a-z]*\\(", program)
    assert sent == ["all-reduce"], (data.name, sent)
print(len(jax.devices()))
"""


def test_devices_that_share_minibatches_have_the_numbers_of_one_and_sum_once_a_step() -> None:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    words = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(words, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4\n"
