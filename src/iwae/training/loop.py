"""The training loop over compiled chunks of steps: a TrainState in, TrainStates out."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from iwae.data.dataset import Dataset
from iwae.errors import IWAEError
from iwae.estimators.base import Estimator
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key
from iwae.training.optim import paper_adam
from iwae.training.schedule import Schedule, check_steps, locate
from iwae.training.step import DeviceData, LearningRates, TrainState, run_chunk

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


def create_model(dataset: Dataset, architecture: Architecture, seed: int) -> HierarchicalVAE:
    """A model with random weights for a dataset, the visible bias set from its training mean."""
    mean = dataset.train.mean(axis=0, dtype=np.float64) * dataset.scale
    return HierarchicalVAE.create(architecture, purpose_key(seed, Purpose.INITIALIZE), jnp.asarray(mean, jnp.float32))


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
    for (progress,) in train_together([state], dataset, schedule, [estimator], optimizer, batch_size=batch_size):
        yield progress


def train_together(
    states: Sequence[TrainState],
    dataset: Dataset,
    schedule: Schedule,
    estimators: Sequence[Estimator],
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int = 20,
    until: int | None = None,
) -> Iterator[list[Progress]]:
    """`train` for several models at once in one compiled program, as different seeds of one experiment or objectives
    that are to be compared: the same networks, data and schedule, and an estimator for each. Each is, up to float32's
    rounding, what it would be if trained alone. An accelerator takes those of one estimator as one batch; on a CPU
    stepping each within one program is quicker.

    They must stand at the same step. Training ends at step `until`, if that is given, wherever the schedule is then.

    Raises what `train` does, and IWAEError for no states, for states at different steps, and for another number of
    estimators.
    """
    if batch_size < 1:
        raise IWAEError(f"the batch size must be at least 1, got {batch_size}")
    steps_per_epoch = dataset.train.shape[0] // batch_size
    if steps_per_epoch == 0:
        raise IWAEError(
            f"the batch size is {batch_size}, but {dataset.name} has {dataset.train.shape[0]} training examples:"
            " choose a smaller --batch-size"
        )
    check_steps(schedule, steps_per_epoch)
    steps = {int(state.step) for state in states}
    if len(steps) != 1:
        raise IWAEError(f"models that are trained together must stand at one step, got {sorted(steps)}")
    if len(estimators) != len(states):
        raise IWAEError(f"every model needs an estimator, got {len(states)} and {len(estimators)}")
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
            estimators=tuple(estimators),
            optimizer=optimizer,
            batch_size=batch_size,
            as_batch=len(states) > 1 and jax.default_backend() != "cpu",
        )
        diverged = [int(i) for i in np.flatnonzero(np.asarray(bad_steps) >= 0)]
        if diverged:
            first = diverged[0]
            raise Divergence(
                f"training diverged: at step {int(bad_steps[first])} (epoch {position.epoch + 1}) the bound was"
                f" {float(bounds[first]):g} or a weight was not finite; try a smaller learning rate"
                " (--learning-rate, with --init-from), a larger --batch-size or --beta1 0.9",
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
