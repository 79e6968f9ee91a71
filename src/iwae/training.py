"""The compiled training step and the loop over it: a TrainState in, TrainStates out."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

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
from iwae.schedule import Position, Schedule, Stage, locate

CHUNK_SECONDS = 1.0
FIRST_CHUNK_STEPS = 20


class Divergence(IWAEError):
    """The bound, or the weights after a step, stopped being finite.

    `state` is the last state known to be good; of models that were trained together `states` are all of theirs, and
    `diverged` says which of them diverged, counted from 0.
    """

    def __init__(self, message: str, states: "Sequence[TrainState]", diverged: Sequence[int] = (0,)):
        super().__init__(message)
        self.states = tuple(states)
        self.diverged = tuple(diverged)
        self.state = self.states[self.diverged[0]]


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


class LearningRates(eqx.Module):
    """A stage's learning rates: `start` at step `first`, in a straight line towards `end` `count` steps later."""

    start: Float[Array, ""]
    end: Float[Array, ""]
    first: Int[Array, ""]
    count: Float[Array, ""]

    @classmethod
    def of(cls, stage: Stage, position: Position) -> "LearningRates":
        """Those of the stage in which `position` lies."""
        count = position.stage_end - position.stage_start
        return cls(
            jnp.float32(stage.learning_rate),
            jnp.float32(stage.end_rate),
            jnp.int32(position.stage_start),
            jnp.float32(count),
        )

    @classmethod
    def constant(cls, learning_rate: float) -> "LearningRates":
        """One for all steps."""
        return cls(jnp.float32(learning_rate), jnp.float32(learning_rate), jnp.int32(0), jnp.float32(1.0))

    def at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The learning rate of one step: a function of its number alone, however steps are cut into chunks."""
        return self.start + (self.end - self.start) * ((step - self.first) / self.count)


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
    learning_rates: LearningRates,
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
    learning_rate = learning_rates.at(state.step)
    model = jax.tree.map(lambda p, d: p + learning_rate * d, state.model, directions)
    # A running mean: a float32 sum over an epoch would lose digits.
    epoch_bound = jnp.where(step_in_epoch == 0, 0.0, state.epoch_bound)
    epoch_bound = epoch_bound + (estimate.value - epoch_bound) / (step_in_epoch + 1)
    return TrainState(model, moments, state.step + 1, epoch_bound, state.key), estimate.value


@eqx.filter_jit
def run_chunk(
    states: tuple[TrainState, ...],
    data: DeviceData,
    learning_rates: LearningRates,
    num_steps: Int[Array, ""],
    *,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    as_batch: bool = False,
) -> tuple[tuple[TrainState, ...], Int[Array, " models"], Float[Array, " models"]]:
    """`num_steps` steps of models that stand at the same step, as one compiled loop; one compilation serves chunks
    of every length. With `as_batch` they are one batch of models (`vmap`), without it each is stepped as if alone.

    Also returns, of each model, the number of the first step (from 0) whose bound was not finite, or -1, and the
    last step's mean bound. The loop ends early at such a step.
    """
    step = partial(train_step, estimator=estimator, optimizer=optimizer, batch_size=batch_size)
    models: Any = states
    advance = partial(_each, step)
    if as_batch:
        models = _stack(states)
        # The step is one number for all: a batch of numbers would turn the slice of the data into a gather.
        axes = eqx.tree_at(lambda state: state.step, jax.tree.map(lambda _: 0, models), None)
        advance = jax.vmap(step, in_axes=(axes, None, None), out_axes=(axes, 0))
    first = states[0].step

    def running(carry: tuple[Any, Array, Array, Array]) -> Array:
        _, done, bad_steps, _ = carry
        return (done < num_steps) & jnp.all(bad_steps < 0)

    def body(carry: tuple[Any, Array, Array, Array]):
        models, done, _, _ = carry
        models, bounds = advance(models, data, learning_rates)
        return models, done + 1, jnp.where(jnp.isfinite(bounds), -1, first + done), bounds

    start = models, jnp.int32(0), jnp.full(len(states), -1), jnp.zeros(len(states))
    models, done, bad_steps, bounds = jax.lax.while_loop(running, body, start)
    states = _unstack(models, len(states)) if as_batch else models
    finite = jnp.stack([_is_finite(state.model) for state in states])
    # Weights can be ruined by the very last step, whose own bound was still finite.
    return states, jnp.where((bad_steps < 0) & ~finite, first + done - 1, bad_steps), bounds


def _each(
    step: Callable[..., tuple[TrainState, Float[Array, ""]]], states: tuple[TrainState, ...], *rest: Any
) -> tuple[tuple[TrainState, ...], Float[Array, " models"]]:
    """One step of each model, as if it were alone."""
    after, bounds = zip(*(step(state, *rest) for state in states), strict=True)
    return after, jnp.stack(bounds)


def _stack(states: tuple[TrainState, ...]) -> TrainState:
    """Models at one step as a batch."""
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return eqx.tree_at(lambda state: state.step, batch, states[0].step)


def _unstack(batch: TrainState, count: int) -> tuple[TrainState, ...]:
    """The models of a batch: all but the step has an axis of models."""

    def one(index: int) -> TrainState:
        return jax.tree.map(lambda leaf: leaf[index] if leaf.ndim else leaf, batch)

    return tuple(one(index) for index in range(count))


def _is_finite(model: HierarchicalVAE) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(model)]))


@dataclass(frozen=True)
class Progress:
    """Where training stands after a chunk.

    `stage` and `epoch` (over the whole schedule) count from 0 and are those of the steps just done, `learning_rate`
    is the last one's; `bound` is the epoch's mean so far, in nats per example; `epoch_done` and `stage_done` say that
    these steps ended one.
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
    for (progress,) in train_together([state], dataset, schedule, estimator, optimizer, batch_size=batch_size):
        yield progress


def train_together(
    states: Sequence[TrainState],
    dataset: Dataset,
    schedule: Schedule,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int = 20,
    until: int | None = None,
) -> Iterator[list[Progress]]:
    """`train` for several models at once in one compiled program, as different seeds of one experiment: the same
    networks, data, schedule and estimator. Each is, up to float32's rounding, what it would be if trained alone. An
    accelerator takes them as one batch; on a CPU stepping each within one program is quicker.

    They must stand at the same step. Training ends at step `until`, if that is given, wherever the schedule is then.

    Raises what `train` does, and IWAEError for no states and for states at different steps.
    """
    if batch_size < 1:
        raise IWAEError(f"the batch size must be at least 1, got {batch_size}")
    steps_per_epoch = dataset.train.shape[0] // batch_size
    if steps_per_epoch == 0:
        raise IWAEError(
            f"the batch size is {batch_size}, but {dataset.name} has {dataset.train.shape[0]} training examples:"
            " choose a smaller --batch-size"
        )
    steps = {int(state.step) for state in states}
    if len(steps) != 1:
        raise IWAEError(f"models that are trained together must stand at one step, got {sorted(steps)}")
    data = DeviceData.put(dataset.train, dataset)
    chunk = FIRST_CHUNK_STEPS
    compiled = False
    (step,) = steps
    states = tuple(states)
    while (position := locate(schedule, step, steps_per_epoch)) is not None:
        num_steps = min(chunk, steps_per_epoch - position.step_in_epoch)
        if until is not None:
            num_steps = min(num_steps, until - step)
            if num_steps <= 0:
                return
        stage = schedule[position.stage]
        learning_rates = LearningRates.of(stage, position)
        start = time.perf_counter()
        after, bad_steps, bounds = run_chunk(
            states,
            data,
            learning_rates,
            jnp.int32(num_steps),
            estimator=estimator,
            optimizer=optimizer,
            batch_size=batch_size,
            as_batch=len(states) > 1 and jax.default_backend() != "cpu",
        )
        diverged = [int(i) for i in np.flatnonzero(np.asarray(bad_steps) >= 0)]
        if diverged:
            first = diverged[0]
            raise Divergence(
                f"training diverged: at step {int(bad_steps[first])} (epoch {position.epoch + 1}) the bound was"
                f" {float(bounds[first]):g} or a weight was not finite; try a larger --batch-size or --beta1 0.9",
                states,
                diverged,
            )
        seconds = time.perf_counter() - start
        states, step = after, step + num_steps
        if compiled:
            chunk = max(1, min(round(num_steps * CHUNK_SECONDS / seconds), 4 * chunk))
        epoch_done = step % steps_per_epoch == 0
        following = locate(schedule, step, steps_per_epoch)
        done = (step - 1 - position.stage_start) / (position.stage_end - position.stage_start)
        learning_rate = stage.rate_after(done)
        yield [
            Progress(
                state=state,
                step=step,
                stage=position.stage,
                epoch=position.epoch,
                learning_rate=learning_rate,
                bound=float(state.epoch_bound),
                steps_per_second=num_steps / seconds if compiled else float("nan"),
                epoch_done=epoch_done,
                stage_done=epoch_done and (following is None or following.stage != position.stage),
            )
            for state in states
        ]
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
