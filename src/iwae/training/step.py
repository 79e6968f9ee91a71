"""What is compiled: one training step, and a chunk of them as one loop."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from iwae.devices import everywhere_inside, minibatch_divided, num_devices, over_devices_inside
from iwae.estimators.base import Estimator
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key
from iwae.training.schedule import Position, Stage


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
        moments = optimizer.init(_parameters(model))
        return cls(model, moments, jnp.int32(0), jnp.float32(0.0), purpose_key(seed, Purpose.TRAIN))


def _parameters(model: HierarchicalVAE) -> Any:
    """What is trained: the arrays of real numbers, None in the place of everything else."""
    return eqx.filter(model, eqx.is_inexact_array)


class LearningRates(eqx.Module):
    """A stage's learning rates: `start` at step `first`, in a straight line towards `end` `count` steps later."""

    start: Float[Array, ""]
    end: Float[Array, ""]
    first: Int[Array, ""]
    count: Float[Array, ""]

    @classmethod
    def of(cls, stage: Stage, position: Position) -> "LearningRates | None":
        """Those of the stage in which `position` lies; None where the optimizer has its own."""
        if stage.learning_rate is None or stage.end_rate is None:
            return None
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


def train_step(
    state: TrainState,
    order: Int[Array, " rows"] | None,
    rows: Array,
    learning_rates: LearningRates | None,
    *,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    data_parallel: bool = False,
) -> tuple[TrainState, Float[Array, ""]]:
    """One step downhill on the next minibatch of `rows` `[n, visible]`, which are as they are stored; also returns the
    batch's mean bound. Minibatches follow `order`, the rows' indices in this epoch, or the rows as they are.
    `learning_rates` multiply the optimizer's updates, if they are given. With `data_parallel` the minibatch is divided
    among the devices of all processes.

    The draws depend on the seed and `state.step` alone.
    """
    ordered = rows if order is None else order
    step_in_epoch = state.step % (ordered.shape[0] // batch_size)
    step_key = jax.random.fold_in(state.key, state.step)
    data_key, model_key = jax.random.split(step_key)
    batch = jax.lax.dynamic_slice_in_dim(ordered, step_in_epoch * batch_size, batch_size)
    batch = batch if order is None else rows[batch]
    x = state.model.prepare(batch, data_key)
    with minibatch_divided(x) if data_parallel else nullcontext(x) as x:
        loss, gradient = estimator.at(state.step)(state.model.in_training(step_key), x, model_key)
    gradient = everywhere_inside(gradient) if data_parallel else gradient
    params = _parameters(state.model)
    updates, moments = optimizer.update(cast(optax.Updates, gradient), state.optimizer, params)
    if learning_rates is not None:
        rate = learning_rates.at(state.step)
        updates = jax.tree.map(lambda update: rate * update, updates)
    model = eqx.apply_updates(state.model, updates)
    # A running mean: a float32 sum over an epoch would lose digits.
    epoch_bound = jnp.where(step_in_epoch == 0, 0.0, state.epoch_bound)
    epoch_bound = epoch_bound + (-loss - epoch_bound) / (step_in_epoch + 1)
    return TrainState(model, moments, state.step + 1, epoch_bound, state.key), -loss


@eqx.filter_jit
def run_chunk(
    states: tuple[TrainState, ...],
    rows: Array,
    learning_rates: LearningRates | None,
    num_steps: Int[Array, ""],
    orders: tuple[Int[Array, " rows"], ...] | None = None,
    *,
    estimators: tuple[Estimator, ...],
    optimizer: optax.GradientTransformation,
    batch_size: int,
    as_batch: bool = False,
    data_parallel: bool = False,
) -> tuple[tuple[TrainState, ...], Int[Array, " models"], Float[Array, " models"]]:
    """`num_steps` steps of models that stand at the same step, as one compiled loop; one compilation serves chunks
    of every length. Each has its estimator and, where the data are shuffled, its order of the rows: all steps are of
    one epoch then. With `as_batch` those whose estimators differ in traced numbers alone are one batch of models
    (`vmap`), divided among the devices of this process; without it each is stepped as if alone. With `data_parallel`
    minibatches are divided among the devices of all processes, and all arrays are `everywhere`.

    Also returns, of each model, the number of the first step (from 0) whose bound was not finite, or -1, and the
    last step's mean bound. The loop ends early at such a step.
    """
    # Only arrays go around the loop: networks of one's own may hold functions and names.
    states, others = eqx.partition(states, eqx.is_array)
    numbers, kinds = eqx.partition(estimators, eqx.is_array)
    groups = [_Group.of(members) for members in (_alike(estimators) if as_batch else _each(estimators))]
    own = list(zip(numbers, orders or [None] * len(numbers), strict=True))
    first = states[0].step

    def step_of(member: int) -> Callable[..., tuple[TrainState, Array]]:
        how: dict[str, Any] = {"optimizer": optimizer, "batch_size": batch_size, "data_parallel": data_parallel}

        def step(arrays: TrainState, own: Any, *rest: Any) -> tuple[TrainState, Array]:
            numbers, order = own
            estimator = eqx.combine(numbers, kinds[member])
            state, bound = train_step(eqx.combine(arrays, others[member]), order, *rest, estimator=estimator, **how)
            return eqx.filter(state, eqx.is_array), bound

        return step

    def advance(models: Any) -> tuple[Any, Float[Array, " models"]]:
        steps = [group.step(step_of(group.members[0])) for group in groups]
        owned = [group.stacked(own) for group in groups]
        pairs = [step(model, o, rows, learning_rates) for step, model, o in zip(steps, models, owned, strict=True)]
        bounds = _in_order(groups, [jnp.atleast_1d(values) for _, values in pairs])
        return tuple(model for model, _ in pairs), jnp.stack(bounds)

    def running(carry: tuple[Any, Array, Array, Array]) -> Array:
        _, done, bad_steps, _ = carry
        return (done < num_steps) & jnp.all(bad_steps < 0)

    def body(carry: tuple[Any, Array, Array, Array]):
        models, done, _, _ = carry
        models, bounds = advance(models)
        return models, done + 1, jnp.where(jnp.isfinite(bounds), -1, first + done), bounds

    start = (
        tuple(group.put(states) for group in groups),
        jnp.int32(0),
        jnp.full(len(states), -1),
        jnp.zeros(len(states)),
    )
    models, done, bad_steps, bounds = jax.lax.while_loop(running, body, start)
    taken = _in_order(groups, [group.take(model) for group, model in zip(groups, models, strict=True)])
    states = tuple(eqx.combine(arrays, other) for arrays, other in zip(taken, others, strict=True))
    finite = jnp.stack([_is_finite(state.model) for state in states])
    # Weights can be ruined by the very last step, whose own bound was still finite.
    return states, jnp.where((bad_steps < 0) & ~finite, first + done - 1, bad_steps), bounds


def _each(estimators: Sequence[Estimator]) -> list[list[int]]:
    return [[index] for index in range(len(estimators))]


def _alike(estimators: Sequence[Estimator]) -> list[list[int]]:
    """Indices of estimators that are equal but for the values of their arrays, group by group."""

    def kind(estimator: Estimator) -> Any:
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf, estimator)

    groups: list[list[int]] = []
    for index, estimator in enumerate(estimators):
        for group in groups:
            if eqx.tree_equal(kind(estimators[group[0]]), kind(estimator)):
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


@dataclass(frozen=True)
class _Group:
    """Models that are stepped at once, as one batch where they are several; `members` are their places among all."""

    members: tuple[int, ...]

    @classmethod
    def of(cls, members: Sequence[int]) -> "_Group":
        """As many on each device: the last one is there several times where that is needed."""
        spare = -len(members) % num_devices() if len(members) > 1 else 0
        return cls((*members, *[members[-1]] * spare))

    def put(self, states: Sequence[TrainState]) -> TrainState:
        """The members' states as one. A batch has an axis of models everywhere but in the step, which is one number
        for all: a batch of numbers would turn the slice of the data into a gather.
        """
        if len(self.members) == 1:
            return states[self.members[0]]
        return eqx.tree_at(lambda state: state.step, self.stacked(states), states[self.members[0]].step)

    def stacked(self, trees: Sequence[Any]) -> Any:
        """The members' trees of arrays as one, with an axis of models where they are several."""
        if len(self.members) == 1:
            return trees[self.members[0]]
        together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(trees[index] for index in self.members))
        return over_devices_inside(together)

    def take(self, state: TrainState) -> list[TrainState]:
        """The members' states out of one."""
        if len(self.members) == 1:
            return [state]

        def member(place: int) -> TrainState:
            return jax.tree.map(lambda leaf: leaf[place] if leaf.ndim else leaf, state)

        return [member(place) for place in range(len(self.members))]

    def step(self, one: Any) -> Any:
        """The step of the group, of one model's."""
        if len(self.members) == 1:
            return one

        def batched(batch: TrainState, own: Any, *rest: Any) -> tuple[TrainState, Float[Array, " models"]]:
            axes = eqx.tree_at(lambda state: state.step, jax.tree.map(lambda _: 0, batch), None)
            in_axes = (axes, 0, *(None for _ in rest))
            return jax.vmap(one, in_axes=in_axes, out_axes=(axes, 0))(batch, own, *rest)

        return batched


def _in_order(groups: Sequence[_Group], found: Sequence[Iterable[Any]]) -> list[Any]:
    """What was found for the members of every group, in the order of the models."""
    by_place = {
        place: value
        for group, values in zip(groups, found, strict=True)
        for place, value in zip(group.members, values, strict=True)
    }
    return [by_place[place] for place in sorted(by_place)]


def _is_finite(model: HierarchicalVAE) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(_parameters(model))]))
