"""Our training and measuring of the paper's networks, as the commands run them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.setting import BATCH, example_values, paper_model
from iwae.data.dataset import Dataset
from iwae.estimators.objective import make_estimator
from iwae.evaluation.chains import ROWS, AnnealedSettings, run_chains, tune
from iwae.evaluation.examples import EXAMPLES_AT_ONCE, example_batches, prepared
from iwae.evaluation.likelihood import likelihoods
from iwae.models.architecture import Precision
from iwae.models.vae import HierarchicalVAE
from iwae.training.optim import paper_adam
from iwae.training.step import LearningRates, TrainState, run_chunk


def dataset(values: np.ndarray) -> Dataset:
    """The grey values as training and as test data."""
    return Dataset("benchmark", values, values[:0], values, 1 / 255.0, False, (28, 28), ())


def trainer(
    num_layers: int, num_samples: int, word: str = "iwae", precision: Precision = "float32"
) -> Callable[[int], None]:
    """Runs that many training steps of the paper's networks, as one compiled loop."""
    return trainer_of(paper_model(num_layers), example_values(), num_samples, word, precision)


def trainer_of(
    model: HierarchicalVAE,
    values: np.ndarray,
    num_samples: int,
    word: str = "iwae",
    precision: Precision = "float32",
    batch_size: int = BATCH,
) -> Callable[[int], None]:
    """Runs that many training steps of a model, as one compiled loop."""
    optimizer = paper_adam()
    estimator = make_estimator(word, num_samples, precision=precision)
    data = jnp.asarray(values)
    state = TrainState.create(model, optimizer, seed=0)

    def run(steps: int) -> None:
        nonlocal state
        rate, count = LearningRates.constant(1e-3), jnp.int32(steps)
        (state,), bad_step, _ = run_chunk(
            (state,), data, rate, count, estimators=(estimator,), optimizer=optimizer, batch_size=batch_size
        )
        assert int(bad_step[0]) < 0

    return run


def measurer(num_layers: int, num_samples: int, examples: int) -> Callable[[int], None]:
    """Measures L_k of that many groups of `examples` examples."""
    model, data = paper_model(num_layers), dataset(example_values())

    def run(groups: int) -> None:
        jax.block_until_ready(
            likelihoods(model, data, num_samples=num_samples, max_examples=examples * groups).log_likelihood
        )

    return run


def annealer(num_layers: int, steps: int, leapfrogs: int) -> Callable[[int], None]:
    """Runs chains over that many temperatures, as many at once as `iwae evaluate --method ais` does, with step sizes
    that are tuned before.
    """
    settings = AnnealedSettings(chains=ROWS // EXAMPLES_AT_ONCE, steps=steps, leapfrogs=leapfrogs)
    model, rows, numbers = prepared(paper_model(num_layers), dataset(example_values()), "test", range(EXAMPLES_AT_ONCE))
    (batch,) = example_batches(rows, numbers)
    tuned = tune(model, batch, settings)

    def run(times: int) -> None:
        for _ in range(times):
            run_chains(model, tuned, settings, batch.every_chain(settings.chains))

    return run
