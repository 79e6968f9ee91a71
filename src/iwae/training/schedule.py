"""Learning-rate stages, as plain numbers (no JAX is imported here)."""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

from iwae.errors import MOST, IWAEError, check_count


@dataclass(frozen=True)
class Stage:
    """`epochs` passes over the training data at one learning rate, or with one that falls (or rises) linearly, step
    by step, to `final_learning_rate`, which the step after the stage would have. Without a learning rate, the
    optimizer has its own.
    """

    epochs: int
    learning_rate: float | None = None
    final_learning_rate: float | None = None

    def __post_init__(self) -> None:
        """Raises IWAEError for fewer than one epoch, a learning rate that is not positive and finite, and a final one
        that is negative or not finite.
        """
        check_count("epochs", self.epochs)
        if self.learning_rate is not None and not 0.0 < self.learning_rate < math.inf:
            raise IWAEError(f"a stage needs a positive learning rate, got {self.learning_rate}")
        if self.final_learning_rate is not None and not 0.0 <= self.final_learning_rate < math.inf:
            raise IWAEError(f"a stage's final learning rate must be 0 or more, got {self.final_learning_rate}")

    @property
    def rate(self) -> float:
        """The learning rate of a stage that has one."""
        assert self.learning_rate is not None
        return self.learning_rate

    def scaled(self, factor: float) -> "Stage":
        """As many epochs with learning rates that are so many times as large."""
        final = self.final_learning_rate
        return Stage(self.epochs, factor * self.rate, None if final is None else factor * final)

    @property
    def end_rate(self) -> float | None:
        """The learning rate towards which the stage goes: its own where it is one for all steps."""
        return self.learning_rate if self.final_learning_rate is None else self.final_learning_rate

    def rate_after(self, part: float) -> float | None:
        """The learning rate once `part` of the stage, from 0 to 1, is done; None where the optimizer has its own."""
        if self.learning_rate is None or self.end_rate is None:
            return None
        return self.learning_rate + (self.end_rate - self.learning_rate) * part


Schedule = tuple[Stage, ...]

# 0.001 * 10^(-i/7), rounded to two digits as the paper's code did (the paper gives the formula).
PAPER_LEARNING_RATES = (1.0e-3, 0.72e-3, 0.52e-3, 0.37e-3, 0.27e-3, 0.19e-3, 0.14e-3, 0.10e-3)


def falling(learning_rate: float, epochs: int, parts: int) -> Schedule:
    """A learning rate that falls in a straight line to zero over all epochs, in stages of about equal length."""
    ends = [round(epochs * part / parts) for part in range(parts + 1)]
    rates = [learning_rate * (1.0 - end / epochs) for end in ends]
    pairs = zip(itertools.pairwise(ends), itertools.pairwise(rates), strict=True)
    return tuple(Stage(end - start, *rates) for (start, end), rates in pairs if end > start)


@dataclass(frozen=True)
class Recipe:
    """A schedule, and what goes with it unless something else is asked for.

    `with_many_samples` is its schedule where each example has more than `MANY_SAMPLES`. Adam is that of the paper's
    code. With `less_noise`, objectives are differentiated by DReG where they have it, and of many samples only
    `FEW_BACKWARD` go through the backward pass. `moments` are those that a step of Adam uses: before its gradient, as
    in the paper's code, or with it.
    """

    schedule: Schedule
    with_many_samples: Schedule
    batch_size: int = 20
    beta1: float = 0.99
    optimizer: Literal["Adam", "Nadam"] = "Adam"
    moments: Literal["delayed", "current"] = "current"
    less_noise: bool = False


# Burda et al. (2015), section 5: stage i is 3^i epochs, 3280 in all.
PAPER = tuple(Stage(3**i, rate) for i, rate in enumerate(PAPER_LEARNING_RATES))
QUICK = (Stage(5, 1e-3), Stage(2, 0.5e-3), Stage(2, 0.25e-3), Stage(1, 0.1e-3))

RECIPES: dict[str, Recipe] = {
    "paper": Recipe(PAPER, PAPER, moments="delayed"),
    "quick": Recipe(QUICK, QUICK),
    # What it comes from, and what it reaches: docs/speed.md.
    "fast": Recipe(
        falling(3e-3, 800, 8), falling(3e-3, 400, 8), batch_size=100, beta1=0.9, optimizer="Nadam", less_noise=True
    ),
}
SCHEDULES: dict[str, Schedule] = {name: recipe.schedule for name, recipe in RECIPES.items()}
MANY_SAMPLES = 8
FEW_BACKWARD = 4

# Burda et al. (2015), Table 2: a model trained on from another's last state.
WARM_START = Stage(2187, 1e-4)


def make_schedule(
    name: str,
    stages: int | None = None,
    *,
    num_samples: int = 1,
    epochs: int | None = None,
    learning_rate: float | None = None,
) -> Schedule:
    """A schedule by name, cut after its first `stages` stages, for as many samples per example.

    `learning_rate` is another one to begin with: the others keep their proportion to it. With `epochs` there are so
    many, at the first learning rate throughout, or falling to zero where the schedule's falls.

    Raises IWAEError for an unknown name and a number of stages that the schedule does not have, and as `Stage` does.
    """
    if name not in SCHEDULES:
        raise IWAEError(f"unknown schedule {name!r}: expected one of {', '.join(SCHEDULES)}")
    recipe = RECIPES[name]
    schedule = recipe.with_many_samples if num_samples > MANY_SAMPLES else recipe.schedule
    if learning_rate is not None:
        schedule = tuple(stage.scaled(learning_rate / schedule[0].rate) for stage in schedule)
    if epochs is not None:
        first = Stage(epochs, schedule[0].rate)
        falls = schedule[-1].final_learning_rate == 0.0
        schedule = falling(first.rate, first.epochs, len(schedule)) if falls else (first,)
    if stages is None:
        return schedule
    if not 1 <= stages <= len(schedule):
        raise IWAEError(f"`stages` must be from 1 to {len(schedule)} for the {name} schedule, got {stages}")
    return schedule[:stages]


@dataclass(frozen=True)
class Position:
    """Where a step lies: `stage` and `epoch` (over the whole schedule) count from 0, `step_in_epoch` too; its stage
    has the steps from `stage_start` to before `stage_end`, counted over the whole schedule.
    """

    stage: int
    epoch: int
    step_in_epoch: int
    stage_start: int
    stage_end: int


def locate(schedule: Schedule, step: int, steps_per_epoch: int) -> Position | None:
    """The position of the next step after `step` steps; None when the schedule is complete."""
    epoch, step_in_epoch = divmod(step, steps_per_epoch)
    end = 0
    for index, stage in enumerate(schedule):
        start, end = end, end + stage.epochs
        if epoch < end:
            return Position(index, epoch, step_in_epoch, start * steps_per_epoch, end * steps_per_epoch)
    return None


def stage_end(schedule: Schedule, stages: int) -> int:
    """Number of epochs in the first `stages` stages."""
    return sum(stage.epochs for stage in schedule[:stages])


def check_steps(schedule: Schedule, steps_per_epoch: int) -> None:
    """Raises IWAEError for a schedule of more steps than can be counted."""
    steps = stage_end(schedule, len(schedule)) * steps_per_epoch
    if steps > MOST:
        raise IWAEError(
            f"{stage_end(schedule, len(schedule)):,} epochs are {steps:,} steps, and no more than {MOST:,} are counted:"
            " choose fewer `epochs` or a larger `batch_size`"
        )


def schedule_to_json(schedule: Schedule) -> list[dict[str, Any]]:
    """Plain lists and numbers for a run's record; a stage at one learning rate has no final one."""
    return [
        {name: value for name, value in dataclasses.asdict(stage).items() if value is not None} for stage in schedule
    ]
