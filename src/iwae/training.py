"""The compiled training step and the loop over it: a TrainState in, TrainStates out."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from iwae.architecture import Architecture
from iwae.data.dataset import Dataset
from iwae.errors import IWAEError
from iwae.estimators import Estimator
from iwae.model import HierarchicalVAE
from iwae.optim import paper_adam
from iwae.randomness import Purpose, purpose_key
from iwae.schedule import Schedule, locate

CHUNK_SECONDS = 1.0
FIRST_CHUNK_STEPS = 20


class Divergence(IWAEError):
    """The bound, or the weights after a step, stopped being finite.

    `state` is the last state known to be good.
    """

    def __init__(self, message: str, state: "TrainState"):
        super().__init__(message)
        self.state = state


class TrainState(eqx.Module):
    """All that training carries from step to step.

    `key` is the seed's key for training, from which each step derives its own; `step` counts the steps done;
    `epoch_bound` is the mean bound, in nats per example, over the steps of the present epoch so far (of the
    last one, when `step` stands between two epochs).
    """

    model: HierarchicalVAE
    optimizer: optax.OptState
    step: Int[Array, ""]
    epoch_bound: Float[Array, ""]
    key: Key[Array, ""]

    @classmethod
    def create(cls, model: HierarchicalVAE, optimizer: optax.GradientTransformation, seed: int) -> "TrainState":
        """The state before the first step."""
        moments = optimizer.init(eqx.filter(model, eqx.is_array))
        return cls(model, moments, jnp.int32(0), jnp.float32(0.0), purpose_key(seed, Purpose.TRAIN))


class DeviceData(eqx.Module):
    """One split on the device: `values * scale` are probabilities, drawn from at every use unless `binary`."""

    values: Array
    scale: float = eqx.field(static=True)
    binary: bool = eqx.field(static=True)

    @classmethod
    def put(cls, values: np.ndarray, dataset: Dataset) -> "DeviceData":
        """Copies `values`, `[examples, visible]` of the dataset's own type, to the default device."""
        return cls(jnp.asarray(values), dataset.scale, dataset.binary)

    def batch(self, start: Int[Array, ""], size: int, key: Key[Array, ""]) -> Float[Array, "batch visible"]:
        """Rows `start` to `start + size`, binarized with `key`."""
        return self.binarize(jax.lax.dynamic_slice_in_dim(self.values, start, size), key)

    def binarize(self, rows: Array, key: Key[Array, ""]) -> Float[Array, "batch visible"]:
        """Zeros and ones drawn from the probabilities in `rows`; binary data is left as it is."""
        values = rows.astype(jnp.float32)
        if self.binary:
            return values
        # Draws are from [0, 1): probability 1 always gives a one, probability 0 never.
        return (jax.random.uniform(key, values.shape) < values * self.scale).astype(jnp.float32)


def create_model(dataset: Dataset, architecture: Architecture, seed: int) -> HierarchicalVAE:
    """A model with random weights for a dataset, the visible bias set from its training mean."""
    mean = dataset.train.mean(axis=0, dtype=np.float64) * dataset.scale
    return HierarchicalVAE.create(architecture, purpose_key(seed, Purpose.INITIALIZE), jnp.asarray(mean, jnp.float32))


def train_step(
    state: TrainState,
    data: DeviceData,
    learning_rate: Float[Array, ""],
    *,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    batch_size: int,
) -> tuple[TrainState, Float[Array, ""]]:
    """One step upwards on the next minibatch in the data's order; also returns the batch's mean bound.

    The draws depend on the seed and `state.step` alone.
    """
    steps_per_epoch = data.values.shape[0] // batch_size
    step_in_epoch = state.step % steps_per_epoch
    data_key, model_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    x = data.batch(step_in_epoch * batch_size, batch_size, data_key)
    estimate = estimator(state.model, x, model_key)
    directions, moments = optimizer.update(cast(optax.Updates, estimate.gradient), state.optimizer)
    model = jax.tree.map(lambda p, d: p + learning_rate * d, state.model, directions)
    # A running mean: a float32 sum over an epoch would lose digits.
    epoch_bound = jnp.where(step_in_epoch == 0, 0.0, state.epoch_bound)
    epoch_bound = epoch_bound + (estimate.value - epoch_bound) / (step_in_epoch + 1)
    return TrainState(model, moments, state.step + 1, epoch_bound, state.key), estimate.value


@eqx.filter_jit
def run_chunk(
    state: TrainState,
    data: DeviceData,
    learning_rate: Float[Array, ""],
    num_steps: Int[Array, ""],
    *,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    batch_size: int,
) -> tuple[TrainState, Int[Array, ""], Float[Array, ""]]:
    """`num_steps` steps as one compiled loop; one compilation serves chunks of every length.

    Also returns the number of the first step (from 0) whose bound was not finite, or -1, and the last step's
    mean bound. The loop ends early at such a step.
    """
    step = partial(train_step, estimator=estimator, optimizer=optimizer, batch_size=batch_size)
    last = state.step + num_steps

    def running(carry: tuple[TrainState, Int[Array, ""], Float[Array, ""]]) -> Array:
        return (carry[0].step < last) & (carry[1] < 0)

    def body(carry: tuple[TrainState, Int[Array, ""], Float[Array, ""]]):
        before, _, _ = carry
        after, bound = step(before, data, learning_rate)
        return after, jnp.where(jnp.isfinite(bound), -1, before.step), bound

    state, bad_step, bound = jax.lax.while_loop(running, body, (state, jnp.int32(-1), jnp.float32(0.0)))
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state.model)])
    # Weights can be ruined by the very last step, whose own bound was still finite.
    bad_step = jnp.where((bad_step < 0) & ~jnp.all(finite), state.step - 1, bad_step)
    return state, bad_step, bound


@dataclass(frozen=True)
class Progress:
    """Where training stands after a chunk.

    `stage` and `epoch` (over the whole schedule) count from 0 and are those of the steps just done; `bound` is
    the epoch's mean so far, in nats per example; `epoch_done` and `stage_done` say that these steps ended one.
    """

    state: TrainState
    step: int
    stage: int
    epoch: int
    learning_rate: float
    bound: float
    steps_per_second: float
    epoch_done: bool
    stage_done: bool


def train(
    state: TrainState,
    dataset: Dataset,
    schedule: Schedule,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int = 20,
) -> Iterator[Progress]:
    """Trains from wherever `state` stands to the end of the schedule, yielding after every chunk of steps.

    Minibatches are taken in the data's order, a last partial one dropped (Burda et al. 2015, section 5). The
    result does not depend on how the steps are cut into chunks: stop at any yield, keep `Progress.state`, and
    call again with it to continue exactly.

    Raises IWAEError when the batch is larger than the training set or empty, and Divergence, within one chunk, when
    the bound or the weights stop being finite.
    """
    if batch_size < 1:
        raise IWAEError(f"the batch size must be at least 1, got {batch_size}")
    steps_per_epoch = dataset.train.shape[0] // batch_size
    if steps_per_epoch == 0:
        raise IWAEError(
            f"the batch size is {batch_size}, but {dataset.name} has {dataset.train.shape[0]} training examples:"
            " choose a smaller --batch-size"
        )
    data = DeviceData.put(dataset.train, dataset)
    chunk = FIRST_CHUNK_STEPS
    compiled = False
    step = int(state.step)
    while (position := locate(schedule, step, steps_per_epoch)) is not None:
        num_steps = min(chunk, steps_per_epoch - position.step_in_epoch)
        start = time.perf_counter()
        after, bad_step, bound = run_chunk(
            state,
            data,
            jnp.float32(position.learning_rate),
            jnp.int32(num_steps),
            estimator=estimator,
            optimizer=optimizer,
            batch_size=batch_size,
        )
        if int(bad_step) >= 0:
            raise Divergence(
                f"training diverged: at step {int(bad_step)} (epoch {position.epoch + 1}) the bound was"
                f" {float(bound):g} or a weight was not finite; try a larger --batch-size or --beta1 0.9",
                state,
            )
        seconds = time.perf_counter() - start
        state, step = after, step + num_steps
        if compiled:
            chunk = max(1, min(round(num_steps * CHUNK_SECONDS / seconds), 4 * chunk))
        epoch_done = step % steps_per_epoch == 0
        following = locate(schedule, step, steps_per_epoch)
        yield Progress(
            state=state,
            step=step,
            stage=position.stage,
            epoch=position.epoch,
            learning_rate=position.learning_rate,
            bound=float(state.epoch_bound),
            steps_per_second=num_steps / seconds if compiled else float("nan"),
            epoch_done=epoch_done,
            stage_done=epoch_done and (following is None or following.stage != position.stage),
        )
        compiled = True


def fit(
    model: HierarchicalVAE,
    dataset: Dataset,
    estimator: Estimator,
    schedule: Schedule,
    *,
    batch_size: int = 20,
    seed: int = 0,
    optimizer: optax.GradientTransformation | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> HierarchicalVAE:
    """The model after the whole schedule, with the paper's Adam unless another optimizer is given.

    `train` is the same, chunk by chunk and resumable; see there for what is raised.
    """
    optimizer = optimizer or paper_adam()
    state = TrainState.create(model, optimizer, seed)
    for progress in train(state, dataset, schedule, estimator, optimizer, batch_size=batch_size):
        state = progress.state
        if on_progress is not None:
            on_progress(progress)
    return state.model
