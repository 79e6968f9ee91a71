"""Measurements spread over several devices: the figures of one, and nothing sent between them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import sys
import equinox as eqx
import jax
import numpy as np
import iwae
from iwae.evaluation import likelihood
from iwae.evaluation.chains import AnnealedSettings
from iwae.evaluation.bidirectional import annealed_bracket, importance_brackets, simulate
from iwae.evaluation.examples import example_batches
from iwae.evaluation.posterior import posterior
from iwae.training.loop import train_together
from iwae.training.optim import paper_adam
from iwae.training.schedule import Stage
from iwae.training.step import TrainState

grey = np.random.default_rng(0).random((90, 6)).astype(np.float32)
data = iwae.Dataset.from_arrays(grey, grey)
model = iwae.create_model(data, iwae.Architecture(6, (4, 3), ((8,), (5,))), seed=1)
short = {"chains": 3, "steps": 4, "leapfrogs": 2}
found = {}
for rung in iwae.ladder(model, data, [3, 120]):
    found |= {f"{name}_{rung.num_samples}": array for name, array in rung.arrays.items()}
(some,) = iwae.ladder(model, data, [120], max_examples=83, first=40)
found["part"] = some.log_likelihood
for count in (1, 90):
    annealed = iwae.ais(model, data, indices=np.arange(90 - count, 90), **short)
    found |= {f"ais_{count}": annealed.log_weights, f"acceptance_{count}": annealed.acceptance}
active = iwae.active_units(model, data)
found |= {f"active_{layer}": values for layer, values in enumerate(active.variances)}
holes = np.where(np.random.default_rng(1).random(grey.shape) < 0.3, np.nan, grey > 0.5)
found["imputed"] = iwae.impute(model, holes, num_samples=70)
found["drawn"] = iwae.impute_multiple(model, holes, 2, num_samples=70)
found["reconstructed"], found["codes"] = iwae.reconstruct(model, grey), iwae.encode(model, grey)
found["posterior"] = posterior(model, data, num_samples=30)[1]
x, exact = simulate(model, 70, 0)
brackets = importance_brackets(model, x, exact, [20])
for bracket in [*brackets, annealed_bracket(model, x, exact, AnnealedSettings(**short))]:
    found |= {f"{bracket.method}_lower": bracket.lower, f"{bracket.method}_upper": bracket.upper}
binary = iwae.Dataset.from_arrays((grey > 0.5).astype(np.uint8))
optimizer = paper_adam(10)
states = [TrainState.create(iwae.create_model(binary, seed=seed), optimizer, seed) for seed in range(3)]
for chunk in train_together(
    states, binary, (Stage(2, 1e-3),), [iwae.make_estimator("iwae", k=2)] * 3, optimizer, batch_size=10
):
    pass
for seed, progress in enumerate(chunk):
    found[f"bound_{seed}"] = np.float64(progress.bound)
    leaves = jax.tree.leaves(eqx.filter(progress.state.model, eqx.is_array))
    found |= {f"weights_{seed}_{number}": leaf for number, leaf in enumerate(leaves)}
np.savez(sys.argv[1], **found)

# A program of one device has nothing to send; on several nothing is sent either.
batch = next(example_batches(x, np.arange(70)))
assert batch.x.sharding.num_devices == len(jax.devices())
assert batch.x.addressable_shards[0].data.shape == (64, 6)
programs, real = [], likelihood._add_samples
likelihood._add_samples = lambda *args: programs.append(real.lower(*args).compile().compiled.as_text()) or real(*args)
iwae.likelihoods(model, data, num_samples=5)
assert programs
assert not any(word in programs[0] for word in ("all-gather", "all-reduce", "collective-permute", "all-to-all"))
print(len(jax.devices()))
"""


def figures(path: Path, devices: int) -> dict[str, np.ndarray]:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    words = [sys.executable, "-c", SCRIPT, str(path)]
    done = subprocess.run(words, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == str(devices)
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.mark.slow
def test_four_devices_have_the_figures_of_one(tmp_path: Path) -> None:
    one, four = (figures(tmp_path / f"{devices}.npz", devices) for devices in (1, 4))
    assert one.keys() == four.keys()
    for name, values in one.items():
        np.testing.assert_allclose(four[name], values, rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(four["part"], four["log_likelihood_120"][40:83], rtol=1e-5)
