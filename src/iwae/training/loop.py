"""The training loop over compiled chunks of steps: a TrainState in, TrainStates out."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from iwae.arithmetic import standard_arithmetic
from iwae.data.dataset import Dataset
from iwae.data.disk_rows import sample_of
from iwae.devices import everywhere, here, num_devices, on_every_device
from iwae.errors import IWAEError, check_count
from iwae.estimators.base import Estimator
from iwae.models.architecture import Architecture
from iwae.models.likelihoods import likelihood_of
from iwae.models.networks.base import Network
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key
from iwae.training import minibatches
from iwae.training.feed import Feed
from iwae.training.optim import Directions, adam, paper_adam
from iwae.training.progress import progress_line
from iwae.training.schedule import Schedule, Stage, check_steps, locate, stage_end
from iwae.training.step import LearningRates, TrainState, run_chunk
from iwae.training.validation import EarlyStopping, validation_bound

DEFAULT_EPOCHS = 20
CHUNK_SECONDS = 1.0
FIRST_CHUNK_STEPS = 20
# Folded into the key of a model's weights, of which its layers take the first numbers.
PRIOR = 1 << 16


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


@standard_arithmetic()
def create_model(
    data: Dataset | ArrayLike,
    architecture: Architecture | None = None,
    seed: int = 0,
    *,
    encoder: Sequence[Network] | None = None,
    decoder: Sequence[Network] | None = None,
    latent: Sequence[int] | None = None,
) -> HierarchicalVAE:
    """A model with random weights for a dataset, or for training rows `[n, dim]` or `[n, height, width]`: its visible
    layer is the data's likelihood, the bias set from the training rows (the logit of the mean for binary data).

    The networks are the architecture's, by default those of the paper with one stochastic layer, and its `image_shape`
    the data's; or modules of your own, one for each layer of `latent` units (see `HierarchicalVAE.from_networks`).

    Raises IWAEError for an architecture of another number of visible units than the data have, and for networks that
    do not fit.
    """
    dataset = as_dataset(data)
    likelihood = likelihood_of(dataset)
    bias, key = likelihood.initial_bias(sample_of(dataset.train)), purpose_key(seed, Purpose.INITIALIZE)
    if encoder is not None or decoder is not None or latent is not None:
        if encoder is None or decoder is None or latent is None or architecture is not None:
            raise IWAEError("networks of your own need `encoder`, `decoder` and `latent`, and no `architecture`")
        return HierarchicalVAE.from_networks(encoder, decoder, latent, dataset.dim, key, likelihood, bias)
    architecture = architecture or Architecture.paper(1)
    architecture = architecture.fitting(architecture.visible or dataset.dim, dataset.image_shape)
    if architecture.visible != dataset.dim:
        raise IWAEError(
            f"`architecture` is for {architecture.visible} visible units, but {dataset.name} has {dataset.dim}"
            " dimensions: leave out `visible`, and it follows the data"
        )
    model = HierarchicalVAE.create(architecture, key, likelihood, bias)
    return model.with_prior_of(dataset.train, jax.random.fold_in(key, PRIOR))


def as_dataset(data: Dataset | ArrayLike) -> Dataset:
    """A dataset as it is, or one of an array of training rows. Raises IWAEError as `Dataset.from_arrays` does."""
    return data if isinstance(data, Dataset) else Dataset.from_arrays(data)


@dataclass(frozen=True)
class Progress:
    """Where training stands after a chunk.

    `stage` and `epoch` (over the whole schedule) count from 0 and are those of the steps just done, `learning_rate`
    is the last one's (None where the optimizer has its own); `bound` is the epoch's mean so far, in nats per example;
    `epoch_done` and `stage_done` say that these steps ended one. `validate` gives the bound of a model on the data's
    validation examples (see `iwae.training.validation`).
    """

    state: TrainState
    step: int
    stage: int
    epoch: int
    learning_rate: float | None
    bound: float
    steps_per_second: float
    epoch_done: bool
    stage_done: bool
    validate: Callable[[HierarchicalVAE], float | None]

    @cached_property
    def valid_bound(self) -> float | None:
        """The bound of the model as it is now on validation examples, in nats per example; None where there are none.
        It is computed when it is first asked for.
        """
        return self.validate(self.state.model)


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

    Each epoch takes the rows in a new order, by seed, and fills up a last partial minibatch. Where `Dataset.shuffled`
    is false, as for the paper's data, minibatches follow the rows as they are, and a last partial one is dropped (Burda
    et al. 2015, section 5).

    Any optimizer of Optax serves; the learning rates of the schedule's stages are for `paper_adam` and `nadam`, which
    have none. The result does not depend on how the steps are cut into chunks: stop at any yield, keep
    `Progress.state`, and call again with it to continue exactly.

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
    agree: Callable[[int], int] | None = None,
) -> Iterator[list[Progress]]:
    """`train` for several models at once in one compiled program, as different seeds of one experiment or objectives
    that are to be compared: the same networks, data and schedule, and an estimator for each. Each is, up to float32's
    rounding, what it would be if trained alone. An accelerator takes those whose estimators differ in traced numbers
    alone as one batch, and several devices divide that among them; on one CPU stepping each within one program is
    quicker.

    With `agree` every minibatch is divided among the devices of all processes (`jax.distributed`), which are all called
    alike. `agree` says how many steps all take next, from how many this process would; 0 ends training.

    They must stand at the same step. Training ends at step `until`, if that is given, wherever the schedule is then.

    Raises what `train` does, and IWAEError for no states, for states at different steps, and for another number of
    estimators.
    """
    check_count("batch_size", batch_size)
    batch_size = int(batch_size)  # NumPy's integers would be traced.
    if batch_size > len(dataset.train):
        raise IWAEError(
            f"`batch_size` is {batch_size}, but {dataset.name} has {dataset.train.shape[0]} training examples:"
            " choose a smaller one"
        )
    steps_per_epoch = minibatches.steps_per_epoch(dataset, batch_size)
    check_steps(schedule, steps_per_epoch)
    steps = {int(state.step) for state in states}
    if len(steps) != 1:
        raise IWAEError(f"models that are trained together must stand at one step, got {sorted(steps)}")
    if len(estimators) != len(states):
        raise IWAEError(f"every model needs an estimator, got {len(states)} and {len(estimators)}")
    is_scaled = not isinstance(optimizer, Directions)
    if is_scaled and any(stage.learning_rate is not None for stage in schedule):
        warnings.warn(
            "the optimizer has a learning rate of its own: those of the schedule's stages are not used", stacklevel=2
        )
    data_parallel = agree is not None
    as_batch = not data_parallel and len(states) > 1 and (jax.default_backend() != "cpu" or num_devices() > 1)
    put = everywhere if data_parallel else on_every_device if as_batch else jnp.asarray
    feed = Feed.of(dataset, batch_size, len(states), put)
    keys = [state.key for state in states]
    states, estimators = tuple(states), tuple(estimators)
    if data_parallel:
        states, estimators = everywhere((states, estimators))
    chunk = FIRST_CHUNK_STEPS
    compiled = False
    orders, ordered_epoch = None, -1
    (step,) = steps
    while (position := locate(schedule, step, steps_per_epoch)) is not None:
        num_steps = min(chunk, steps_per_epoch - position.step_in_epoch, feed.most_steps)
        if until is not None:
            num_steps = min(num_steps, until - step)
            if num_steps <= 0:
                return
        if agree is not None and (num_steps := agree(num_steps)) == 0:
            return
        stage = schedule[position.stage]
        learning_rates = None if is_scaled else LearningRates.of(stage, position)
        start = time.perf_counter()
        with standard_arithmetic():
            if dataset.shuffled and position.epoch != ordered_epoch:
                ordered_epoch = position.epoch
                shuffle = partial(minibatches.epoch_order, num_rows=len(dataset.train), batch_size=batch_size)
                orders = tuple(shuffle(key, jnp.int32(ordered_epoch)) for key in keys)
            rows, places = feed.rows(position.step_in_epoch, num_steps, orders)
            rest = learning_rates, jnp.int32(num_steps), places
            after, bad_steps, bounds = run_chunk(
                states,
                rows,
                *(everywhere(rest) if data_parallel else rest),
                estimators=estimators,
                optimizer=optimizer,
                batch_size=batch_size,
                as_batch=as_batch,
                data_parallel=data_parallel,
            )
        diverged = [int(i) for i in np.flatnonzero(np.asarray(bad_steps) >= 0)]
        if diverged:
            first = diverged[0]
            raise Divergence(
                f"training diverged: at step {int(bad_steps[first])} (epoch {position.epoch + 1}) the bound was"
                f" {float(bounds[first]):g} or a weight was not finite; try a smaller learning rate or a larger"
                " `batch_size`",
                here(states) if data_parallel else states,
                diverged,
            )
        seconds = time.perf_counter() - start
        states, step = after, step + num_steps
        if compiled:
            chunk = max(1, min(round(num_steps * CHUNK_SECONDS / seconds), 4 * chunk))
        epoch_done = step % steps_per_epoch == 0
        following = locate(schedule, step, steps_per_epoch)
        done = (step - 1 - position.stage_start) / (position.stage_end - position.stage_start)
        learning_rate = None if is_scaled else stage.rate_after(done)
        yield [
            Progress(
                state=here(state) if data_parallel else state,
                step=step,
                stage=position.stage,
                epoch=position.epoch,
                learning_rate=learning_rate,
                bound=float(state.epoch_bound),
                steps_per_second=num_steps / seconds if compiled else float("nan"),
                epoch_done=epoch_done,
                stage_done=epoch_done and (following is None or following.stage != position.stage),
                validate=partial(validation_bound, dataset=dataset, num_samples=getattr(estimator, "num_samples", 1)),
            )
            for state, estimator in zip(states, estimators, strict=True)
        ]
        compiled = True


def fit(
    model: HierarchicalVAE,
    data: Dataset | ArrayLike,
    estimator: Estimator,
    schedule: Schedule | optax.Schedule | None = None,
    *,
    epochs: int | None = None,
    batch_size: int = 20,
    learning_rate: float = 1e-3,
    optimizer: optax.GradientTransformation | None = None,
    seed: int = 0,
    patience: int | None = None,
    callback: Callable[[Progress], None] | None = None,
    progress: bool | None = None,
) -> HierarchicalVAE:
    """The model after training on a dataset, or on rows `[n, dim]` or `[n, height, width]`.

    The optimizer is Adam with `learning_rate`, for `epochs` (by default 20), unless something else is given: any
    `optimizer` of Optax; a `schedule` of Optax, a function of the step, for Adam's learning rate; or a schedule of
    stages, such as `make_schedule("paper")`, which says for how long and with which rates, with the paper's Adam.

    With `patience` training ends early, after so many epochs in which the bound on the validation examples did not
    rise, and the model returned is the best one by that bound (`Progress.valid_bound`).

    `callback` is called once an epoch. A line of progress is shown in terminals and notebooks; `progress` says
    otherwise. `train` is the same, chunk by chunk and resumable; see there for what else is raised.

    Raises IWAEError for both stages and `epochs`, and for `patience` without validation examples.
    """
    dataset = as_dataset(data)
    stages = schedule if isinstance(schedule, tuple | list) else None
    if stages is not None and epochs is not None:
        raise IWAEError("a schedule of stages says for how many epochs: leave out `epochs`")
    count = DEFAULT_EPOCHS if epochs is None else epochs
    if optimizer is None and stages is None and callable(schedule):
        optimizer = optax.adam(schedule)
    elif optimizer is None:
        optimizer = adam() if stages is None else paper_adam(batch_size)
        stages = (Stage(count, learning_rate),) if stages is None else stages
    stopping = None if patience is None else EarlyStopping(patience)
    if stopping is not None and len(dataset.valid) == 0:
        raise IWAEError("`patience` needs validation examples: iwae.Dataset.from_arrays(train, test, valid)")
    stages = (Stage(count),) if stages is None else tuple(stages)
    with standard_arithmetic():
        state = TrainState.create(model, optimizer, seed)
    best = state.model
    with progress_line(stage_end(stages, len(stages)), progress) as line:
        for step in train(state, dataset, stages, estimator, optimizer, batch_size=batch_size):
            state = step.state
            line.update(step.epoch + step.epoch_done, step.bound, step.steps_per_second)
            if step.epoch_done and callback is not None:
                callback(step)
            if not step.epoch_done or stopping is None:
                continue
            assert step.valid_bound is not None
            if stopping.improves(step.valid_bound):
                best = state.model
            elif stopping.is_over:
                break
    return state.model if stopping is None else best
